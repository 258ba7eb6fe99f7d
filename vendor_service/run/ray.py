"""The vendor on a Ray cluster: `serve run vendor_service.run.ray:app`.

The HTTP front and the model are deployments of their own. The front is the application that `vendor serve`
runs, keys, decoding and books included; each replica of the model batches with the engine that `vendor serve`
has, across all callers that it is sent. Ray starts, watches, adds and removes replicas.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import memory
from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.http.metrics import SECONDS, SIZES
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.preparation import count_decoders
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.queries import Encoded
from vendor_service.encoder.remote import PreparedBatch, RemoteEncoder, ask_facts
from vendor_service.errors import APIError
from vendor_service.metrics import Metrics
from vendor_service.money.billing_log import open_billing_log
from vendor_service.run.app import create_app
from vendor_service.run.factory import find_tokenizer, load_engine, prepare_with
from vendor_service.run.logs import log_as
from vendor_service.run.model_specs import ModelSpec, find_specs
from vendor_service.run.serve import prepare_database
from vendor_service.run.settings import Settings

# Requests that one replica has at a time: more are sent to others, or make Ray start another.
_WANTED_REQUESTS = 8
_MOST_REQUESTS = 64
# The front bounds what it takes by inputs and bytes; this only has to be more than that ever lets in.
_MOST_FRONT_REQUESTS = 4096
# As long as `vendor serve` gives requests that are in hand at its end.
_STOP_SECONDS = 30.0
_HEALTH_SECONDS = 10.0


class Scale(BaseModel):
    """How large it may become; `serve run vendor_service.run.ray:app max_replicas=8 num_gpus=1`.

    `num_gpus` and `num_cpus` are those of one replica of the model; `fronts` is how many processes answer
    HTTP.
    """

    model_config = ConfigDict(extra="forbid")

    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 0
    num_cpus: Annotated[float, Field(ge=0)] = 1
    fronts: Annotated[int, Field(ge=1)] = 1


def app(scale: Scale) -> serve.Application:
    """The application, by the settings (`VENDOR_*`) of the process that starts it.

    Raises:
        UsageError: a setting is not valid.
    """
    settings = Settings.read()
    specs = find_specs(settings)
    names = ["model"] if not settings.tells_models_apart else [_deployment(each.id) for each in specs]
    models = [_model(name, scale).bind(settings, spec) for name, spec in zip(names, specs, strict=True)]
    front = serve.deployment(
        name="front",
        num_replicas=scale.fronts,
        max_ongoing_requests=_MOST_FRONT_REQUESTS,
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_timeout_s=_STOP_SECONDS,
    )(serve.ingress()(Front))
    return front.bind(settings, specs, *models)


def _deployment(model_id: str) -> str:
    """The name of a model's deployment, which has no room for what Ray's own names are separated by."""
    return "model-" + re.sub("[^A-Za-z0-9._-]", "-", model_id)


def _model(name: str, scale: Scale) -> serve.Deployment:
    return serve.deployment(
        name=name,
        ray_actor_options={"num_cpus": scale.num_cpus, "num_gpus": scale.num_gpus},
        max_ongoing_requests=_MOST_REQUESTS,
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            max_replicas=max(scale.min_replicas, scale.max_replicas),
            target_ongoing_requests=_WANTED_REQUESTS,
        ),
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_timeout_s=_STOP_SECONDS,
    )(ModelReplica)


class ModelReplica:
    """The model on the devices of one replica."""

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        log_as(settings)
        self._engine = load_engine(spec, 0, RayObserver())
        self._engine.start()

    def __del__(self) -> None:
        self._engine.close()

    def facts(self) -> ModelFacts:
        """Which model it is."""
        return self._engine.facts

    async def encode(
        self, account: str, batch: PreparedBatch, fingerprint: str, background: bool = False
    ) -> Encoded:
        """Unit vectors of the inputs, in their order, by the model that the caller knows.

        Raises:
            APIError: that is another model (`not_ready`): Ray serves two while it exchanges them.
        """
        if fingerprint != self._engine.facts.fingerprint:
            message = "the model is being exchanged; nothing was charged"
            raise APIError(ErrorCode.NOT_READY, message, retry_after=1)
        return await self._engine.encode(account, batch.unpack(), background=background)

    async def check_health(self) -> None:
        """Raise if the model cannot encode: Ray replaces a replica that says so three times."""
        await self._engine.check()


class Front:
    """The application of `vendor serve`, with its models elsewhere."""

    def __init__(
        self, settings: Settings, specs: Sequence[ModelSpec], *models: DeploymentHandle[Any]
    ) -> None:
        self._settings = settings
        self._specs = specs
        self._models = {spec.id: model for spec, model in zip(specs, models, strict=True)}
        self._encoders: list[RemoteEncoder] = []
        self._open = ExitStack()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the application; Ray asks for it once, at the start."""
        memory.share_heap()
        log_as(self._settings)
        if self._settings.billing_log is not None:
            self._open.enter_context(open_billing_log(self._settings.billing_log))
        prepare_database(self._settings)
        return create_app(self._settings, specs=self._specs, make_encoder=self._encoder)

    async def check_health(self) -> None:
        """Raise if a model has been exchanged: Ray replaces a front that says so three times."""
        await asyncio.gather(*(each.check_exchanged() for each in self._encoders))

    def __del__(self) -> None:
        self._open.close()

    def _encoder(self, spec: ModelSpec, _: Settings, metrics: Metrics) -> Encoder:
        model = self._models[spec.id]
        facts = ask_facts(model)
        preprocessing, decoders = Preprocessing(facts.preprocessing), count_decoders(1)  # it has no workers
        preparation = prepare_with(spec, decoders, preprocessing, find_tokenizer(spec), metrics)
        encoder = RemoteEncoder(model, facts, preparation)
        self._encoders.append(encoder)
        return encoder


def proxy_layers() -> list[Middleware]:
    """The callback of Ray's HTTP proxies, if RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it."""
    return [Middleware(OneRequestId)]


class OneRequestId:
    """Leaves each answer the `x-request-id` that the vendor knows it by; the proxy adds its own to it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                ids = headers.getlist("x-request-id")
                if len(ids) > 1:
                    headers["x-request-id"] = ids[0]
                    message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_once)


class RayObserver:
    """Tells Ray's own metrics what the engine of one replica does; it is an `Observer`."""

    def __init__(self) -> None:
        kinds = ("kind",)
        self._waits = Histogram(
            "tuition_queue_wait_seconds", "From the queue to the first batch.", list(SECONDS), kinds
        )
        self._sizes = Histogram("tuition_batch_size", "Queries in one batch.", list(SIZES), kinds)
        self._runs = Histogram(
            "tuition_model_seconds", "One forward pass of one batch.", list(SECONDS), kinds
        )
        self._deaths = Counter(
            "tuition_device_deaths", "Deaths of a device's worker, which was started anew."
        )
        self._lookups = Counter("tuition_text_cache", "Texts looked for in memory.", ("outcome",))

    def decoded(self, kind: Kind, seconds: float) -> None:
        """Nothing is decoded here."""

    def restarted(self, kind: Kind, reason: str) -> None:
        """Nothing is prepared here."""

    def waited(self, kind: Kind, seconds: float) -> None:
        """The first of one caller's queries leaves the queue."""
        self._waits.observe(seconds, {"kind": kind})

    def ran(self, kind: Kind, size: int, seconds: float) -> None:
        """The model answered a batch of `size` queries."""
        self._sizes.observe(size, {"kind": kind})
        self._runs.observe(seconds, {"kind": kind})

    def died(self) -> None:
        """The worker of a device died."""
        self._deaths.inc()

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Texts were looked for in the cache."""
        if hits:
            self._lookups.inc(hits, {"outcome": "hit"})
        if misses:
            self._lookups.inc(misses, {"outcome": "miss"})
