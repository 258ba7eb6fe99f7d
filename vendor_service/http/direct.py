"""The direct way to the routes that are asked most, past what a framework does for routes of any kind."""

from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import APIError
from shared.http.errors import refused

Endpoint = Callable[[Request], Awaitable[Response]]


class DirectRoutes:
    """A layer of the application that answers `POST` on some routes itself, and passes on everything else.

    The endpoints take a request and return its response. The framework has the routes too, for its OpenAPI
    document; to find one, to solve dependencies and to open stacks for them takes it as long as all that the
    vendor does for a text that it knows.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = {each.path: each for each in routes if isinstance(each, APIRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await cast(Endpoint, route.endpoint)(request)
        except APIError as error:
            response = refused(request, error)
        await response(scope, receive, send)
