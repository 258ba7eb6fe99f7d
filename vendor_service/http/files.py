"""`/v1/files`: the files of bulk jobs, in OpenAI's shapes; streamed in and out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import StreamingResponse

from shared.batches import FileDeleted, FileList, FileObject, Purpose
from shared.fairness import FairTurns
from shared.http import multipart
from shared.http.body import blocks, media_type, receiver_of, until_sent
from shared.http.capacity import Capacity, Reservation
from shared.http.errors import invalid
from shared.http.multipart import FormBody, FormShape
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope
from vendor_service.batches.files import input_name, public
from vendor_service.batches.intake import Intake, Taken
from vendor_service.batches.services import BatchServices
from vendor_service.batches.store import Store
from vendor_service.database.view import View
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import Authentication, requiring

_SHAPE = FormShape(frozenset({"purpose"}), 0, streamed="file")
# A file is checked and stored in blocks of this size.
_BLOCK_BYTES = 512 * 1024
_LONGEST_SECONDS = 3600.0
_FORM_BYTES = 65_536  # of an upload beside its file
_LONGEST_NAME = 255
# As OpenAI has it: whoever deletes the files while they are listed has no `after` to go on from.
_MOST_LISTED = 10_000
# What is kept of a file that is sent or fetched, beside the line that is being read.
_KEPT_BYTES = 4 << 20

Made = TypeVar("Made")


def files_router(
    services: BatchServices, authentication: Authentication, capacity: Capacity, threads: AccountThreads
) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/files", tags=["bulk jobs"])
    buyer = Depends(requiring(authentication, Scope.EMBED))
    turns = FairTurns()  # of parsing, which holds the interpreter

    @router.post("", openapi_extra=_request_body())
    async def upload(request: Request, caller: Annotated[Caller, buyer]) -> FileObject:
        """Send a file of requests, a JSON object a line, with the purpose `batch`. Its lines are checked."""
        media_type(request, multipart.MEDIA_TYPE)
        held = capacity.reserve(caller.account_id, caller.view.project_id)
        reservation = until_sent(request).enter_context(held)
        reservation.take_bytes(_KEPT_BYTES)
        receiver_of(request).allow(services.limits.max_file_bytes + _FORM_BYTES, _LONGEST_SECONDS)
        return await _Upload(services, threads, turns, request, caller, reservation).receive()

    @router.get("")
    async def list_files(
        caller: Annotated[Caller, buyer],
        purpose: Purpose | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = _MOST_LISTED,
        order: Literal["asc", "desc"] = "desc",
    ) -> FileList:
        """The files in this key's view."""
        page = partial(services.files.page, newest_first=order == "desc")
        found, more = await threads.read(caller.account_id, page, caller.view, purpose, after, limit)
        return _listed(found, has_more=more)

    @router.get("/{file_id}")
    async def one_file(file_id: str, caller: Annotated[Caller, buyer]) -> FileObject:
        """A file by its id."""
        return public(await threads.read(caller.account_id, services.files.get, caller.view, file_id))

    @router.delete("/{file_id}")
    async def delete_file(file_id: str, caller: Annotated[Caller, buyer]) -> FileDeleted:
        """Delete a file, unless a job that is in progress reads it."""
        let_go = partial(services.files.let_go, caller.view, file_id)
        await threads.do(caller.account_id, authentication.while_good, caller, let_go)
        await services.files.store.do(services.files.remove, file_id)
        return FileDeleted(id=file_id)

    @router.get("/{file_id}/content", response_class=StreamingResponse, responses={200: _LINES})
    async def content(request: Request, file_id: str, caller: Annotated[Caller, buyer]) -> StreamingResponse:
        """What is in a file."""
        return await streamed(services, capacity, request, caller.view, file_id)

    return router


_MEDIA_TYPE = "application/jsonl"
_LINES: dict[str, Any] = {"content": {_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


def _listed(found: list[FileObject], *, has_more: bool) -> FileList:
    ids: list[str | None] = [*(each.id for each in found)] or [None]
    return FileList(data=found, first_id=ids[0], last_id=ids[-1], has_more=has_more)


async def streamed(
    services: BatchServices, capacity: Capacity, request: Request, view: View, file_id: str
) -> StreamingResponse:
    """Send a file in view block by block, within the capacity of this server.

    Raises:
        APIError: `not_found`, `overloaded` or `shutting_down`.
    """
    reservation = until_sent(request).enter_context(capacity.reserve(view.account_id, view.project_id))
    reservation.take_bytes(_KEPT_BYTES)
    file = await asyncio.to_thread(services.files.get, view, file_id)
    blocks = await asyncio.to_thread(services.files.content, view, file_id)
    headers = {"content-length": str(file.bytes)}
    return StreamingResponse(_beside(services.files.store, blocks), media_type=_MEDIA_TYPE, headers=headers)


class _Upload:
    """A file that comes in a form: each line is checked, then stored, and the account's room is counted."""

    def __init__(
        self,
        services: BatchServices,
        threads: AccountThreads,
        turns: FairTurns,
        request: Request,
        caller: Caller,
        reservation: Reservation,
    ) -> None:
        self._services = services
        self._threads = threads
        self._turns = turns
        self._request = request
        self._reservation = reservation
        self._caller = caller
        self._account_id = caller.account_id
        self._intake = Intake(services.reader, services.limits)
        self._form = FormBody(request.headers["content-type"], _SHAPE, self._take)
        self._unstored: list[bytes] = []
        declared = request.headers.get("content-length", "")
        self._size = max(0, int(declared[:18]) - _FORM_BYTES) if declared.isdecimal() else 0

    async def receive(self) -> FileObject:
        """Take the whole form.

        Raises:
            APIError: the file cannot be taken; nothing of it is kept.
        """
        files = self._services.files
        begin = partial(files.begin, self._account_id, self._caller.project_id, self._size)
        file_id = await self._threads.do(self._account_id, begin)
        try:
            name, taken = await self._store(file_id)
            return await self._threads.do(
                self._account_id, files.finish, self._account_id, file_id, name, taken
            )
        except BaseException:
            await asyncio.shield(files.store.do(files.give_up, file_id))
            raise

    async def _store(self, file_id: str) -> tuple[str, Taken]:
        """Bring the file into the store; its name, and what it is."""
        store = self._services.files.store
        writing = store.writing(input_name(file_id))
        write = await store.do(writing.__enter__)
        try:
            reserved = came = 0
            async for block in blocks(self._request, _BLOCK_BYTES):
                content = await self._parse(self._feed, block)
                if self._intake.kept_bytes > reserved:
                    self._reservation.take_bytes(self._intake.kept_bytes - reserved)
                    reserved = self._intake.kept_bytes
                came += len(content)
                if came > self._size + _FORM_BYTES:  # its size was not said
                    self._size = await self._threads.do(
                        self._account_id, self._services.files.grow, self._account_id, file_id, came
                    )
                await store.do(write, content)
            done = await self._parse(self._finish)
        except BaseException as error:
            await asyncio.shield(store.do(writing.__exit__, type(error), error, error.__traceback__))
            raise
        await store.do(writing.__exit__, None, None, None)
        return done

    async def _parse(self, work: Callable[..., Made], *given: bytes) -> Made:
        async with self._turns.turn(self._account_id):
            return await asyncio.to_thread(work, *given)

    def _feed(self, block: bytes) -> bytes:
        """Take the next bytes of the form; those of the file that are to be stored."""
        self._form.feed(block)
        stored, self._unstored = b"".join(self._unstored), []
        return stored

    def _finish(self) -> tuple[str, Taken]:
        fields = self._form.finish().fields
        if "file" not in fields:
            raise invalid("send one file named file", "file")
        if fields.get("purpose") != "batch":
            raise invalid("the purpose of a file is batch", "purpose")
        return fields["file"][:_LONGEST_NAME], self._intake.finish()

    def _take(self, content: bytes) -> None:
        if content:
            self._intake.feed(content)
            self._unstored.append(content)


async def _beside(store: Store, blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The blocks, each read beside the event loop."""
    while (block := await store.do(next, blocks, None)) is not None:
        yield block


def _request_body() -> dict[str, Any]:
    # The route reads the body itself, as it comes; this tells the OpenAPI document what it reads.
    properties = {"purpose": {"const": "batch"}, "file": {"type": "string", "format": "binary"}}
    schema = {"type": "object", "properties": properties, "required": ["purpose", "file"]}
    return {"requestBody": {"required": True, "content": {multipart.MEDIA_TYPE: {"schema": schema}}}}
