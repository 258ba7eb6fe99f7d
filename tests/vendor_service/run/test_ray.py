"""The front and the replicas of a Ray cluster, without the cluster: a call between them is made at once."""

import asyncio
import inspect
import warnings
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from shared.errors import ErrorCode
from tests.support.tiny_clip import write_tiny_clip
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.preparation import Preparation
from vendor_service.encoder.queries import Encoded, PreparedText
from vendor_service.errors import APIError
from vendor_service.metrics import Metrics
from vendor_service.run.factory import prepare_with
from vendor_service.run.model_specs import ModelSpec, find_specs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pydantic, about Ray's own models
    from ray.exceptions import RayActorError, RayTaskError

    from vendor_service.encoder.remote import RemoteEncoder
    from vendor_service.run import ray

TEXT = PreparedText("a cat", torch.ones(16, dtype=torch.int64))
FORMER, LATTER = "fp_former", "fp_latter"


class Engine:
    """The engine of one replica, which makes the same row of everything."""

    def __init__(self, facts: ModelFacts) -> None:
        self.facts = facts

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def encode(self, account: str, prepared: list[Any], *, background: bool) -> Encoded:
        return Encoded(np.ones((len(prepared), 1), np.float32), 0.0, 0.0)


class Answer:
    """What a handle gives for a call: what the replica said, or its error in Ray's wrapping."""

    def __init__(self, replica: Any, method: str, args: Any) -> None:
        self._replica, self._method, self._args = replica, method, args

    async def _ask(self) -> Any:
        if self._replica is None:
            raise RayActorError
        try:
            said = getattr(self._replica, self._method)(*self._args)
            return await said if inspect.isawaitable(said) else said
        except Exception as error:
            wrapped: Any = RayTaskError
            raise wrapped(self._method, "traceback", error).as_instanceof_cause() from None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._ask().__await__()

    def result(self) -> Any:
        return asyncio.run(self._ask())

    def cancel(self) -> None:
        pass


class Call:
    """One method of whatever replica the handle leads to now."""

    def __init__(self, handle: "Handle", method: str) -> None:
        self._handle, self._method = handle, method

    def remote(self, *args: Any) -> Answer:
        return Answer(self._handle.replica, self._method, args)


class Handle:
    """A handle to replicas of which one answers; `None` where there is none."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica

    def __getattr__(self, method: str) -> Call:
        return Call(self, method)


class Cluster:
    """A front, its encoder, and the handle that it asks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self._monkeypatch = monkeypatch
        self._settings = GivenSettings(model=write_tiny_clip(folder, seed=1), **settings)
        (self._spec,) = find_specs(self._settings)
        self._facts = ClipModel(self._spec.source, [torch.device("cpu")], "float32").facts
        for name in ("log_as", "prepare_database", "RayObserver"):
            monkeypatch.setattr(ray, name, lambda *_, **__: None)
        monkeypatch.setattr("shared.memory.share_heap", lambda: None)
        monkeypatch.setattr(ray, "create_app", self._keep)
        self.handle = Handle(self.replica(FORMER))
        self.front = ray.Front(self._settings, [self._spec], cast(Any, self.handle))
        self.front.__serve_build_asgi_app__()

    def replica(self, fingerprint: str) -> ray.ModelReplica:
        """One of the model of that fingerprint."""
        engine = Engine(replace(self._facts, fingerprint=fingerprint))
        self._monkeypatch.setattr(ray, "load_engine", lambda *_: engine)
        return ray.ModelReplica(self._settings, self._spec)

    def _keep(self, settings: Any, *, specs: list[ModelSpec], make_encoder: Any) -> None:
        self.encoder: RemoteEncoder = make_encoder(specs[0], settings, Metrics())


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path / "tiny", monkeypatch)


def test_a_front_decodes_on_all_processors_whatever_workers_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = []

    def noted(spec: ModelSpec, count: int, *rest: Any) -> Preparation:
        decoders.append(count)
        return prepare_with(spec, count, *rest)

    monkeypatch.setattr(ray, "prepare_with", noted)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    Cluster(tmp_path / "tiny", monkeypatch, workers=3)
    assert decoders == [12]


def test_a_replica_of_another_model_than_the_front_knows_answers_nothing(cluster: Cluster) -> None:
    assert cluster.encoder.facts.fingerprint == FORMER
    assert len(asyncio.run(cluster.encoder.encode("a", [TEXT, TEXT])).rows) == 2
    cluster.handle.replica = cluster.replica(LATTER)
    with pytest.raises(APIError) as refused:
        asyncio.run(cluster.encoder.encode("a", [TEXT]))
    assert type(refused.value) is APIError
    assert (refused.value.code, refused.value.retry_after) == (ErrorCode.NOT_READY, 1)
    assert cluster.encoder.waiting("text") == 0


def test_a_front_whose_model_was_exchanged_says_that_it_is_ill(cluster: Cluster) -> None:
    asyncio.run(cluster.front.check_health())
    cluster.handle.replica = cluster.replica(LATTER)
    with pytest.raises(RuntimeError, match=f"{LATTER}, and not {FORMER}"):
        asyncio.run(cluster.front.check_health())


def test_a_front_is_not_ill_where_no_replica_answers(cluster: Cluster) -> None:
    cluster.handle.replica = None
    asyncio.run(cluster.front.check_health())
