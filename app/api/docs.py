"""The interactive API documentation at /docs, from files in the package: it works with no network."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from app.api import problems
from app.predictions.inference.tensors import InferRequest
from app.predictions.schemas import PredictRequest

# Only documents how to authenticate; `app.api.deps.authenticate` does it, with errors that help.
BEARER = HTTPBearer(auto_error=False, description="A key from `graft keys create`: `gw_…`.")

_FILES = Path(fastapi_offline.__file__).parent / "static"


def install(app: FastAPI, open_routes: Iterable[str]) -> None:
    """Serve the page, which needs no key and so is not a FastAPI route. Its calls need one, except to `open_routes`."""
    app.mount("/docs/files", StaticFiles(directory=_FILES), name="docs-files")

    async def page(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} API",
            swagger_js_url=f"{root}/docs/files/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/files/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/files/favicon.png",
            swagger_ui_parameters={"defaultModelsExpandDepth": 0, "persistAuthorization": True},
        )

    def openapi() -> dict[str, Any]:
        schema = FastAPI.openapi(app)
        for path in open_routes:
            for operation in schema["paths"][path].values():
                operation["security"] = []
        problems.document(schema)
        # Bodies that a route reads by itself, because it takes other kinds too.
        _, read_by_hand = models_json_schema(
            [(PredictRequest, "validation"), (InferRequest, "validation")], ref_template="#/components/schemas/{model}"
        )
        schema["components"]["schemas"] |= read_by_hand["$defs"]
        # FastAPI describes streams with a word of OpenAPI 3.2 in a document of 3.1, which no validator takes.
        for path in ("/v1/jobs/{job_id}/events", "/v1/events/stream"):
            stream = schema["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"]
            stream["schema"] = {"type": "string"}
            stream.pop("itemSchema", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_route("/docs", page, include_in_schema=False)
