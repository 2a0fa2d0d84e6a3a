// Starts the API reference; its requests carry the CSRF token of this browser session.
"use strict";
const place = document.getElementById("reference");
fetch(place.dataset.session, { credentials: "same-origin" })
  .then((answer) => answer.json())
  .then((session) => {
    window.SwaggerUIBundle({
      url: place.dataset.document,
      domNode: place,
      deepLinking: true,
      docExpansion: "list",
      validatorUrl: null,
      requestInterceptor: (request) => {
        request.headers["X-CSRF-Token"] = session.csrf_token;
        return request;
      },
    });
  });
