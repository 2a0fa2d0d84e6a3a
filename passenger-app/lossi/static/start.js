// While a job is under way the page is fetched again every five seconds, but only where somebody sees it.
"use strict";
setInterval(() => {
  if (document.visibilityState === "visible") {
    location.reload();
  }
}, 5000);
