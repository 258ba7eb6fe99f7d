"""The real application on a real uvicorn in a thread of the test, within reach of the test's clock."""

import base64
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from shared.embeddings import Kind
from shared.errors import ErrorBody, ErrorCode
from shared.http.connections import Config
from shared.processes import fork_server
from tests.support.forking import launch_decoding
from tests.support.loaded_models import loaded_once
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import lay_out
from tests.vendor_service.clocks import FakeClock
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import KeyTerms, Scope, issue_key
from vendor_service.accounts.projects import ProjectTerms, create_project
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey
from vendor_service.encoder.queries import Vectors
from vendor_service.encoder.replica import Replica, Staged
from vendor_service.run import factory
from vendor_service.run.app import create_app
from vendor_service.run.hangups import Hangups

# The first one to start waits for what all are forked from, which imports everything.
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


class Vendor:
    """A vendor that listens on 127.0.0.1 at `port`, whose books and clock are within reach."""

    clock: Clock

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.books = Database(database_url)
        self._names = iter(range(10**6))

    def connect(self, port: int) -> None:
        """Open the connection that `http` is."""
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def close(self) -> None:
        """Close the connection and the books."""
        self.http.close()
        self.books.close()

    def key(self, **terms: Any) -> str:
        """A key of a new account on these `Terms`."""
        with self.books.write() as session:
            account = open_account(session, f"account-{next(self._names)}", Terms(**terms), self.clock)
            return issue_key(session, account, KeyTerms(), self.clock).api_key

    def another_key(self, api_key: str, *scopes: Scope) -> str:
        """One more key of the same account."""
        with self.books.write() as session:
            account = session.get_one(Account, session.get_one(ApiKey, api_key.split("_")[1]).account_id)
            return issue_key(session, account, KeyTerms(scopes=frozenset(scopes)), self.clock).api_key

    def project_key(self, api_key: str) -> str:
        """A key of a new project of the same account."""
        with self.books.write() as session:
            account = session.get_one(Account, session.get_one(ApiKey, api_key.split("_")[1]).account_id)
            name = f"project-{next(self._names)}"
            create_project(session, account, name, ProjectTerms(), self.clock)
            return issue_key(session, account, KeyTerms(project=name), self.clock).api_key

    def embed(self, api_key: str, *inputs: dict[str, str], **rest: Any) -> httpx.Response:
        """Ask for these inputs; `headers` among `rest` are sent, the rest is put into the body."""
        headers = {"authorization": f"Bearer {api_key}"} | rest.pop("headers", {})
        return self.http.post("/embed", json={"inputs": list(inputs)} | rest, headers=headers)

    def get(self, path: str, api_key: str, **parameters: str) -> Any:
        answer = self.http.get(path, params=parameters, headers={"authorization": f"Bearer {api_key}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def account(self, api_key: str) -> Account:
        """The account's row, as it is now."""
        with self.books.read() as session:
            return session.get_one(Account, session.get_one(ApiKey, api_key.split("_")[1]).account_id)


class LocalVendor(Vendor):
    """A vendor on a free port; `settings` are those of `Settings`.

    A connection whose request was answered is kept for the next one, for `keep_alive` seconds.
    """

    clock: FakeClock

    def __init__(
        self, folder: Path, *, hangups: Hangups | None = None, keep_alive: int = 5, **settings: Any
    ) -> None:
        super().__init__(f"sqlite:///{folder / 'local.db'}")
        lay_out(self.database_url)
        self.clock = FakeClock()
        with patch.object(factory, "ClipModel", loaded_once):
            self.app: FastAPI = create_app(
                GivenSettings(database_url=self.database_url, **settings),
                self.clock,
                steady=self.clock.steady,
                hangups=hangups,
            )
        config = Config(
            self.app,
            most=1000,
            port=0,
            log_config=None,
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=20,  # where a test fails
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._launch = patch.object(fork_server, "launch", launch_decoding)

    def __enter__(self) -> Self:
        self._launch.start()  # also of a model that is added later, or takes another's place
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), _START_SECONDS)
        assert self._server.started, "the vendor did not start"
        self.connect(self._server.servers[0].sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._launch.stop()
        assert not self._thread.is_alive(), f"the vendor did not stop within {_STOP_SECONDS} s"
        self.close()


def error_code(answer: httpx.Response) -> str:
    """The code of an error, after checking that the body is the contract's."""
    error = ErrorBody.model_validate_json(answer.content).error
    assert error.request_id == answer.headers["x-request-id"]
    kind = ErrorCode(error.code).kind
    assert answer.status_code == kind.status
    assert error.retryable == (kind.retryable and answer.headers.get("x-should-retry") != "false")
    return error.code


def image_file(
    colour: str = "red", size: tuple[int, int] = (40, 30), form: str = "PNG", mode: str = "RGB"
) -> bytes:
    """The bytes of an image file of one colour."""
    buffer = BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, form)
    return buffer.getvalue()


def image_input(content: bytes | None = None) -> dict[str, str]:
    """An image as an input of `POST /embed`."""
    return {"image": base64.b64encode(image_file() if content is None else content).decode()}


class ScriptedTexts:
    """Lets a test take hold of the real model: it fails on the text `explode`, kills its worker on `die`, and
    stands still on `wait` until `go` is set.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.waiting = threading.Event()
        self.seen: list[str] = []
        stage, encode = Replica.stage, Replica.encode
        texts: dict[int, Sequence[str]] = {}  # of the batches that are staged

        def stage_noted(replica: Replica, kind: Kind, items: Sequence[Any]) -> Staged:
            staged = stage(replica, kind, items)
            if kind == "text":
                texts[id(staged)] = [each.text for each in items]
            return staged

        def encode_scripted(replica: Replica, kind: Kind, staged: Staged) -> Vectors:
            batch = texts.pop(id(staged), [])
            self.seen += batch
            if "explode" in batch:
                raise RuntimeError("secret: the model is broken")
            if "die" in batch:
                raise SystemExit("the worker is killed")
            if "wait" in batch:
                self.waiting.set()
                assert self.go.wait(60)
            return encode(replica, kind, staged)

        monkeypatch.setattr(Replica, "stage", stage_noted)
        monkeypatch.setattr(Replica, "encode", encode_scripted)
