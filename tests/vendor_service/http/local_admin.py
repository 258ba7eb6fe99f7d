"""The operators' application on a real uvicorn in a thread of the test, with books and clock in reach."""

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import httpx
import uvicorn

from shared.http.connections import Config
from tests.vendor_service.books import Books
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.acts import operators
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.run.admin import create_admin_app


class LocalAdmin:
    """`/admin` and the console over books, with a token of each scope; see `create_admin_app`."""

    def __init__(
        self,
        books: Books,
        *,
        vendor_url: str | None = None,
        reload_models: Callable[[], None] | None = None,
        **settings: Any,
    ) -> None:
        self.books = books
        url = books.url
        self.app = create_admin_app(
            GivenSettings(database_url=url, **settings),
            books.clock,
            steady=books.clock.steady,
            vendor_url=vendor_url,
            reload_models=reload_models,
        )
        self._server = uvicorn.Server(Config(self.app, most=100, port=0, log_config=None))
        self._thread = threading.Thread(target=self._server.run)
        self.tokens = {scope: self.token(scope) for scope in OperatorScope}

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join()

    def token(self, *scopes: OperatorScope) -> str:
        """A new token."""
        with self.books.database.write() as session:
            return operators.issue(Act(session, "os:test", self.books.clock), "test", scopes).token

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        scope: OperatorScope = OperatorScope.ALL,
        key: str | None = None,
        token: str | None = None,
    ) -> httpx.Response:
        """Ask with a token of a scope, or with another `token`; `key` is the idempotency key."""
        headers = {"authorization": f"Bearer {token or self.tokens[scope]}"}
        if key is not None:
            headers["idempotency-key"] = key
        return self.http.request(method, f"/admin/{path}", json=body, headers=headers)

    def done(self, method: str, path: str, body: object = None, **how: Any) -> Any:
        """What was answered to what must succeed."""
        answer = self.ask(method, path, body, **how)
        assert answer.is_success, answer.text
        return answer.json()
