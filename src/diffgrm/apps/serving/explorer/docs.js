// The description of all routes; it stands in a file of its own, for the page runs no code that it holds itself.
"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#routes",
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
});
