"""`GET /`: a page where people drop images and see answers. It asks nobody but this server."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from client.serving.keys import Keys
from client.serving.rendering import STYLES, read_asset, render
from client.serving.slider import unsure_of
from client.serving.student import ServedStudent

_ASSETS = {
    **dict.fromkeys(STYLES, "text/css"),
    "page.js": "text/javascript",
    "server.js": "text/javascript",
    "slider.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# What the page may load: its own files, and pictures that are on it already.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes(student: ServedStudent, keys: Keys, *, asks: bool) -> list[Route]:
    """The page about this student, which perhaps asks a vendor, and its files; they need no key."""
    html = render(
        "page.html",
        student=student.card,
        expected=student.card.expected_accuracy,
        key_needed=keys.needed,
        samples=(),
        script="server.js",
        asks=asks,
        asking=student.asking,
        unsure=unsure_of(student.classifier.metadata),
    )

    async def page(_: Request) -> Response:
        headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
        return HTMLResponse(html, headers=headers | {"x-content-type-options": "nosniff"})

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise HTTPException(404)
        headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
        return Response(read_asset(name), media_type=_ASSETS[name], headers=headers)

    return [Route("/", page), Route("/assets/{name}", asset)]
