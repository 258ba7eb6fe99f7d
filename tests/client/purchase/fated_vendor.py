"""A vendor whose every answer is fated, by requests and by bulk jobs, and that keeps true books."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import (
    AnswerRejected,
    Bill,
    ClientError,
    IdempotencyKeySpent,
    NotFound,
    PriceRaised,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    VendorUnreachable,
)
from client.vendors.bulk_api import BulkApi
from client.vendors.query import Query
from client.vendors.signatures import KeyRing, SignedKeys
from client.vendors.teachers.tuition import VendorClient
from client.vendors.transport import NO_HOOKS, Hooks
from client.vendors.vendor import EmbedResult, Vendor
from shared.batches import BatchObject, ChunkReceipt, FileObject, RequestCounts
from shared.embeddings import Embedding, EmbedResponse, ModelCard, Prices
from shared.encoding import Vector, to_base64
from shared.kinds import Usage
from shared.receipts import (
    RECEIPT_TYPE,
    ReceiptClaims,
    Sold,
    answer_hash,
    request_hash,
    vector_digest,
)
from tests.client.cards import MODEL
from tests.client.key_sets import key_set
from vendor_service.money.signing import SigningKey

PRICES, BATCH_PRICES = Prices(image_micros=100, text_micros=20), Prices(image_micros=50, text_micros=10)
SIGNER = SigningKey(Ed25519PrivateKey.generate())


class Killed(BaseException):
    """The client is killed here."""


@dataclass
class Charge:
    """What was charged under a key: for which run, and at which price."""

    run: str
    queries: tuple[Query, ...]
    cost_micros: int
    request_id: str


@dataclass
class Job:
    """A bulk job, whose lines were all charged when it was begun."""

    name: str
    lines: list[tuple[Query, ...]]
    is_gone: bool = False
    bills_more: int = 0


@dataclass
class Books:
    """What a vendor knows.

    Attributes:
        fates: of the next requests; when they are used up, all go well.
        charges: by account and idempotency key; those of jobs by the keys of their parts.
        spent: keys that are answered no more.
        late: what is served only later.
        jobs: by account and idempotency key.
        raised: by how much a text costs more than the client knows.
        is_swapped: whether another model answers.
        run: who is asking.
    """

    fates: list[str | Callable[[], object]] = field(default_factory=list)
    charges: dict[tuple[str, str], Charge] = field(default_factory=dict)
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    late: list[Callable[[], object]] = field(default_factory=list)
    raised: int = 0
    is_swapped: bool = False
    run: str = ""

    def fate(self) -> str:
        """What becomes of a request; something may happen meanwhile that has no part in it."""
        fate = self.fates.pop(0) if self.fates else "serve"
        if callable(fate):
            fate()
            return "serve"
        return fate

    def arrive(self) -> None:
        """Serve what is late."""
        late, self.late = self.late, []
        for serve in late:
            serve()

    def charged(self, run: str | None = None) -> list[Query]:
        """Every query that was charged, as often as it was, to a run or to all."""
        return [
            query for charge in self.charges.values() if run in (None, charge.run) for query in charge.queries
        ]


def vector_of(query: Query) -> Vector:
    """What the model says of a query: a unit vector of two dimensions."""
    angle = int(query.digest[:8], 16)
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def _sure(error: ClientError, *, unsure: bool) -> ClientError:
    error.unsure = unsure
    return error


class FatedVendor(Vendor):
    """One key of an account at such a vendor."""

    def __init__(self, books: Books, key: str, account: str, *, repeats_are_free: bool = True) -> None:
        self.declares = replace(VendorClient.declares, repeats_are_free=repeats_are_free)
        self.url = "http://vendor"
        self.key_id = key
        self._books = books
        self._account = account
        self.bulk = FatedJobs(books, account)

    def stop(self) -> None:
        pass

    @staticmethod
    def _error_of(response: httpx.Response, url: str) -> ClientError:
        raise NotImplementedError

    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:
        return MODEL.model_copy(update={"prices": PRICES, "batch_prices": BATCH_PRICES})

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> EmbedResult:
        books, asked = self._books, tuple(query for query, _ in queries)
        name, run = (self._account, idempotency_key), books.run
        hooks.on_try()

        def serve() -> EmbedResult:
            if idempotency_key in books.spent:
                raise _sure(IdempotencyKeySpent("spent"), unsure=False)
            charge = books.charges.get(name)
            if charge is None:
                cost = (PRICES.text_micros + books.raised) * len(asked)
                if self.declares.repeats_are_free and cost > (max_cost_micros or 0):
                    raise _sure(PriceRaised("dearer"), unsure=False)
                charge = Charge(run, asked, cost, f"req_{len(books.charges)}")
                books.charges[name] = charge
            usage = Usage.of({"text": len(asked)}, charge.cost_micros)
            sign = -1 if books.is_swapped else 1
            vectors = {query: sign * vector_of(query) for query in asked}
            return EmbedResult(vectors, {}, usage, charge.request_id)

        answer = _befall(books, books.fate(), serve, name)
        if answer is None:  # lost, and tried again
            hooks.on_unsure()
            books.charges[self._account, f"{idempotency_key}:{len(books.charges)}"] = books.charges.pop(name)
            answer = serve()
        return answer


def _befall(
    books: Books, fate: str, serve: Callable[[], EmbedResult], name: tuple[str, str]
) -> EmbedResult | None:
    """Answer a request as it is fated."""
    if fate == "late":
        books.late.append(lambda: _quietly(serve))
    if fate in ("lose", "lose once", "killed after", "overcharge", "spent"):
        answer = serve()
    match fate:
        case "lose once":
            return None
        case "refuse":
            raise _sure(QuotaExhausted("no more"), unsure=False)
        case "too large":
            raise _sure(RequestTooLarge("too large"), unsure=False)
        case "untold":
            raise _sure(RequestRefused("no"), unsure=False)
        case "unsent":
            raise _sure(VendorUnreachable("nobody there"), unsure=False)
        case "cut" | "lose" | "late":
            raise _sure(VendorUnreachable("cut"), unsure=True)
        case "killed before" | "killed after":
            raise Killed
        case "spent":
            books.spent.add(name[1])
            raise _sure(IdempotencyKeySpent("spent"), unsure=False)
        case "overcharge":
            error = AnswerRejected("not finite")
            error.bill, error.fault = Bill(answer.request_id, MODEL.fingerprint, answer.usage), "not finite"
            raise error
    return serve()


def _quietly(serve: Callable[[], object]) -> None:
    with suppress(ClientError):
        serve()


class FatedJobs(BulkApi):
    """The bulk jobs of an account there."""

    def __init__(self, books: Books, account: str) -> None:
        self.keys = KeyRing(lambda: SignedKeys.of(key_set(SIGNER)))
        self._books = books
        self._account = account
        self._sent: dict[str, list[tuple[Query, ...]]] = {}

    def send_file(self, file: BinaryIO) -> FileObject:
        file.seek(0)
        lines = [json.loads(line)["body"]["inputs"] for line in file]
        name = f"file-{len(self._sent)}"
        self._sent[name] = [tuple(Query.text(each["text"]) for each in line) for line in lines]
        return FileObject(id=name, bytes=1, created_at=0, expires_at=1, filename="f", purpose="batch")

    def delete_file(self, file_id: str) -> None:
        pass

    def begin(
        self, file_id: str, *, idempotency_key: str, max_cost_micros: int, fingerprint: str, hooks: Hooks
    ) -> BatchObject:
        hooks.on_try()
        books, run, lines = self._books, self._books.run, self._sent[file_id]
        name, fate = (self._account, idempotency_key), books.fate()

        def serve() -> EmbedResult:
            if name not in books.jobs:
                books.jobs[name] = Job(f"batch_{len(books.jobs)}", lines)
                for place, line in enumerate(lines):
                    cost, request_id = BATCH_PRICES.text_micros * len(line), f"req_{len(books.charges)}"
                    part = (self._account, f"{idempotency_key}:{place}")
                    books.charges[part] = Charge(run, line, cost, request_id)
            return EmbedResult({}, {}, Usage.of({}, 0), "")

        if fate in ("overcharge", "spent", "untold", "too large"):
            fate = "serve"
        _befall(books, fate, serve, name)
        return self._object(name)

    def find(self, idempotency_key: str) -> BatchObject | None:
        name = (self._account, idempotency_key)
        return self._object(name) if name in self._books.jobs else None

    def get(self, batch_id: str) -> BatchObject:
        for name, job in self._books.jobs.items():
            if job.name == batch_id and name[0] == self._account:
                return self._told(name, job)
        raise _sure(NotFound("no such job"), unsure=False)

    def _told(self, name: tuple[str, str], job: Job) -> BatchObject:
        match self._books.fate():
            case "cut" | "lose" | "late" | "unsent":
                raise VendorUnreachable("cut")
            case "untold" | "refuse":
                raise _sure(RequestRefused("no"), unsure=False)
            case "killed before" | "killed after":
                raise Killed
            case "spent":
                job.is_gone = True
            case "running":
                return self._object(name).model_copy(update={"status": "in_progress"})
            case "overcharge":
                job.bills_more = 1000
        if job.is_gone:
            raise _sure(NotFound("no such job any more"), unsure=False)
        return self._object(name)

    def receipts(self, batch_id: str) -> Any:
        name, job = self._named(batch_id)
        for place, line in enumerate(job.lines):
            charge = self._books.charges[name[0], f"{name[1]}:{place}"]
            sold = [
                Sold(index, "text", query.digest, vector_digest(vector_of(query)))
                for index, query in enumerate(line)
            ]
            claims = ReceiptClaims(
                iat=1, request_id=charge.request_id, request_hash=request_hash(sold),
                answer_hash=answer_hash(sold), model="m", model_fingerprint=MODEL.fingerprint, images=0,
                texts=len(line), cost_micros=charge.cost_micros + job.bills_more, account_id="a",
                key_id="k", ledger_seq=1, entry_hash="e" * 64,
            )  # fmt: skip
            yield ChunkReceipt(first_line=place, lines=1, receipt=SIGNER.sign(RECEIPT_TYPE, claims))

    def download(self, file_id: str, to: BinaryIO, most_bytes: int) -> None:
        name, job = self._named(file_id.removeprefix("out-"))
        for place, line in enumerate(job.lines):
            charge = self._books.charges[name[0], f"{name[1]}:{place}"]
            data = [
                Embedding(index=index, kind="text", embedding=to_base64(vector_of(query)))
                for index, query in enumerate(line)
            ]
            body = EmbedResponse(
                id=charge.request_id, model="m", model_fingerprint=MODEL.fingerprint, dimensions=2, data=data,
                usage=Usage.of({"text": len(line)}, charge.cost_micros + job.bills_more),
            )  # fmt: skip
            answer = {"custom_id": str(place), "response": {"body": body.model_dump()}}
            to.write(json.dumps(answer).encode() + b"\n")

    def _named(self, batch_id: str) -> tuple[tuple[str, str], Job]:
        return next((name, job) for name, job in self._books.jobs.items() if job.name == batch_id)

    def _object(self, name: tuple[str, str]) -> BatchObject:
        job = self._books.jobs[name]
        cost = sum(BATCH_PRICES.text_micros * len(line) for line in job.lines)
        counts = RequestCounts(total=len(job.lines), completed=len(job.lines), failed=0)
        return BatchObject(
            id=job.name, endpoint="/embed", model="m", model_fingerprint=MODEL.fingerprint,
            input_file_id="in", status="completed", output_file_id=f"out-{job.name}", error_file_id=None,
            created_at=0, in_progress_at=0, expires_at=1, completed_at=1, cancelled_at=None, expired_at=None,
            request_counts=counts, metadata=None, cost_micros=cost, held_micros=0,
        )  # fmt: skip
