"""The claims of docs/claims.md: what is trained for them, how they are judged, and the page."""
