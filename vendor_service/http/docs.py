"""`GET /docs`: Swagger UI, of whose files none comes from elsewhere, in a page that may load nothing else."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

# The package is used for its files alone: a current Swagger UI.
_PACKAGE = "fastapi_swagger.resources"
_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Swagger UI puts styles into the elements that it makes, and draws its icons from data.
_POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_router(title: str) -> APIRouter:
    """The page and its files; it reads `/openapi.json`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    def page(request: Request) -> Response:
        root = str(request.scope.get("root_path", "")).rstrip("/")
        html = get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title=title,
            swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},  # it would tell a stranger where this is
        )
        html.headers["content-security-policy"] = _policy(bytes(html.body).decode())
        html.headers["referrer-policy"] = "no-referrer"
        return html

    @router.get("/docs/{name}")
    def file(name: str) -> Response:
        if name not in _FILES:
            raise HTTPException(404)
        headers = {"cache-control": "max-age=86400", "x-content-type-options": "nosniff"}
        return Response(_read(name), media_type=_FILES[name], headers=headers)

    return router


@cache
def _read(name: str) -> bytes:
    return resources.files(_PACKAGE).joinpath(name).read_bytes()


def _policy(html: str) -> str:
    """The page's content security policy: its own files, and the one script in it, known by its digest."""
    (script,) = _INLINE_SCRIPT.findall(html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _POLICY.format(digest=digest)
