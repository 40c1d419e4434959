"""Cross-origin calls: pages of the origins in `GRAFT_CORS_ORIGINS` may call everything, with a key of their own."""

from typing import Any

# Keys travel in a header that the page itself sets, and no cookie is ever sent: credentials stay off.
CROSS_ORIGIN: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
    "allow_headers": ["*"],
    "expose_headers": [
        *("Location", "Retry-After", "X-Request-Id", "Server-Timing", "Content-Disposition", "Idempotent-Replayed"),
        *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Upload-Offset", "Upload-Length"),
        *("Upload-Expires", "Upload-Metadata"),
    ],
    "max_age": 600,
}
