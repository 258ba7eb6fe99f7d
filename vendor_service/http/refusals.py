"""A layer of the application that tells which account's request was refused, and why."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class RefusalNotes:
    """Has each refusal noted whose caller is known; what is asked from the console's pages is not counted."""

    def __init__(self, app: ASGIApp, note: Callable[[str, str], None]) -> None:
        self._app = app
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        await self._app(scope, receive, send)
        state = scope.get("state", {})
        code, account_id = state.get("error_code"), state.get("account_id")
        if code is not None and account_id is not None and not scope["path"].startswith("/console"):
            self._note(account_id, code)
