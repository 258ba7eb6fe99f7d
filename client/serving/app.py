"""The application of a deployed student: its routes, put together with everything that they need."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from client.data.images import MAX_PIXELS
from client.learning.rejection import NEVER
from client.options.students import Period
from client.serving.answers import Answer
from client.serving.ask_queue import AskQueue
from client.serving.batcher import Batcher
from client.serving.classify import Answerer, StudentAnswerer, render
from client.serving.decoding import ImageDecoder
from client.serving.deferring import DeferringAnswerer
from client.serving.health import Readiness
from client.serving.hosts import HostCheck
from client.serving.keys import Keys
from client.serving.metrics import Metrics
from client.serving.page import page_routes
from client.serving.reading import ImageReader
from client.serving.selection import CallersStreams
from client.serving.student import ServedStudent
from shared import memory
from shared.embeddings import Limits
from shared.errors import APIError
from shared.http.body import disconnected, until_sent
from shared.http.capacity import Capacity, Reservation, while_awaited
from shared.http.errors import error_handlers
from shared.http.middleware import RequestGate
from shared.images.limits import MOST_SIDE, ImageLimits

# As large as the vendor's, by default.
LIMITS = Limits(
    max_inputs=256,
    max_request_bytes=32 * 2**20,
    max_image_bytes=20 * 2**20,
    max_image_pixels=MAX_PIXELS,
    max_image_side=MOST_SIDE,
)
_MOST_IMAGES, _MOST_BYTES = 4096, 2**30  # in hand at a time
_SECONDS = 60  # that a request may take
_CRASH = "something went wrong here; the request may be sent again"

Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


@dataclass(frozen=True)
class Deferral:
    """Whom a student asks where it is not sure.

    Attributes:
        streams: about which images.
        queue: asks the vendor.
        seconds: how long a caller waits for it.
        budget: queries that may be paid for in a period.
        period: "day", "month" or "total".
    """

    streams: CallersStreams
    queue: AskQueue
    seconds: float
    budget: int | None
    period: Period


def create_app(
    student: ServedStudent, keys: Keys, hosts: HostCheck, threads: int, deferral: Deferral | None = None
) -> Starlette:
    """An application that serves the student while its lifespan runs.

    Args:
        student: who answers.
        keys: who may ask.
        hosts: under which names, and from which pages.
        threads: so many run the student, and as many processes decode.
        deferral: whom the student asks; `None` for nobody.
    """
    metrics = Metrics()
    card = student.card
    limits = ImageLimits(card.limits.max_image_bytes, card.limits.max_image_pixels)
    processes = min(threads, os.cpu_count() or 1)
    decoder = ImageDecoder(card.image_size, limits, processes, metrics, sends=deferral is not None)
    batcher = Batcher(student.classifier, decoder, metrics, threads)
    reject_below = NEVER if card.reject is None else card.reject.below
    answerer: Answerer = StudentAnswerer(batcher, reject_below)
    if deferral is not None:
        queue = deferral.queue
        answerer = DeferringAnswerer(
            answerer, deferral.streams, queue, keys.may_spend, decoder.as_sent, seconds=deferral.seconds
        )
        metrics.show(
            "paid_micros", "Paid to the vendor, in millionths of its unit.", lambda: queue.cost_micros
        )
    capacity = Capacity(max_inputs=_MOST_IMAGES, max_bytes=_MOST_BYTES, max_seconds=_SECONDS)
    metrics.show("queue_images", "Images that wait for the student.", lambda: batcher.waiting)
    metrics.show("in_hand_bytes", "Bytes of requests in memory.", lambda: capacity.bytes)
    routes = [
        Route(
            "/classify",
            classify_route(student, answerer, capacity, keys, metrics),
            methods=["POST"],
        ),
        Route("/v1/student", student_route(student, keys)),
        Route("/v1/deferral", deferral_route(deferral, metrics, keys)),
        *health_routes(Readiness(batcher, capacity)),
        Route("/metrics", metrics_route(metrics)),
        *page_routes(student, keys, asks=deferral is not None),
    ]
    app = Starlette(
        routes=routes, exception_handlers=error_handlers("/"), lifespan=_lifespan(batcher, deferral)
    )
    app.add_middleware(RequestGate, crash_message=_CRASH, metrics=metrics, refusal=hosts.refusal)
    app.state.capacity = capacity
    return app


def classify_route(
    student: ServedStudent, answerer: Answerer, capacity: Capacity, keys: Keys, metrics: Metrics
) -> Endpoint:
    """`POST /classify`: HTTP on one side, an `Answerer` on the other."""
    card = student.card
    reader = ImageReader(card.limits)
    pixel_bytes = 3 * card.image_size**2

    async def classify(request: Request) -> Response:
        account = keys.account_of(request)
        reservation = until_sent(request).enter_context(capacity.reserve(account))
        images, options = await reader.read(request, reservation)
        reservation.take_inputs(len(images))
        reservation.take_bytes(len(images) * pixel_bytes)
        answers = await _while_here(request, answerer.answer(account, images, options.on_error), reservation)
        if options.on_error == "fail":
            _require_whole(answers)
        for answer in answers:
            if isinstance(answer, Answer):
                metrics.answered_image(answer.answered_by, rejected=answer.rejected)
        content = render(images, answers, card.classes, options)
        reservation.keep_bytes(len(content))
        return Response(content, media_type="application/json")

    return classify


def student_route(student: ServedStudent, keys: Keys) -> Endpoint:
    """`GET /v1/student`: which student answers."""
    unasked = {"limits": {"replay_window_seconds", "max_replays"}}  # of a vendor
    content = student.card.model_dump(mode="json", exclude=unasked)

    async def tell(request: Request) -> Response:
        keys.account_of(request)
        return JSONResponse(content)

    return tell


def deferral_route(deferral: Deferral | None, metrics: Metrics, keys: Keys) -> Endpoint:
    """`GET /v1/deferral`: who has answered how many images, and what is left of the budget."""

    async def tell(request: Request) -> Response:
        keys.account_of(request)
        left = None if deferral is None else await asyncio.to_thread(lambda: deferral.queue.budget_left)
        told = {
            "asks": deferral is not None,
            "answered_by": metrics.answered_by,
            "cost_micros": 0 if deferral is None else deferral.queue.cost_micros,
            "budget": None if deferral is None else deferral.budget,
            "budget_left": left,
            "period": None if deferral is None else deferral.period,
        }
        return JSONResponse(told)

    return tell


def health_routes(readiness: Readiness) -> list[Route]:
    """`GET /livez` and `GET /readyz`; they need no key."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        await readiness.check()
        return JSONResponse({"status": "ready"})

    return [Route("/livez", livez), Route("/readyz", readyz)]


def metrics_route(metrics: Metrics) -> Endpoint:
    """`GET /metrics`: what Prometheus asks for; it needs no key."""

    async def read(request: Request) -> Response:
        content, media_type = metrics.render(request.headers.get("accept", ""))
        return Response(content, media_type=media_type)

    return read


async def _while_here(request: Request, work: Awaitable[T], reservation: Reservation) -> T:
    leaving = asyncio.ensure_future(disconnected(request))
    try:
        return await while_awaited(work, reservation, leaving)
    finally:
        leaving.cancel()


def _require_whole(answers: Sequence[Answer | APIError]) -> None:
    """Raise the refusal of the first image that has one, with its place in the request."""
    for index, answer in enumerate(answers):
        if isinstance(answer, APIError):
            raise APIError(answer.code, answer.message, param=f"inputs.{index}.image")


def _lifespan(
    batcher: Batcher, deferral: Deferral | None
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run(_: Starlette) -> AsyncIterator[None]:
        await batcher.start()
        if deferral is not None:
            deferral.queue.start()
        tidying = asyncio.create_task(memory.keep_small())
        yield
        tidying.cancel()
        await asyncio.gather(tidying, return_exceptions=True)
        await batcher.close()
        if deferral is not None:
            await asyncio.to_thread(deferral.queue.close)

    return run
