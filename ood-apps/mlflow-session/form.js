'use strict';

// A link from Lossi's pages names the project; nothing is sent before the user does it.
(() => {
  const named = new URLSearchParams(window.location.search).get('store');
  const field = document.getElementById('batch_connect_session_context_store');
  if (field && named && named.startsWith('/')) {
    field.value = named;
  }
})();
