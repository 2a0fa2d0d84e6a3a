// While a job is active, reload every five seconds if the page is visible.
"use strict";
setInterval(() => {
  if (document.visibilityState === "visible") {
    location.reload();
  }
}, 5000);
