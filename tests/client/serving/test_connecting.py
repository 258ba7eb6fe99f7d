"""What asks the vendor says whether connecting to it was paid for in vain."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client.errors import FingerprintChanged
from client.learning.rejection import NEVER
from client.learning.student_metadata import StudentMetadata
from client.options.students import AskOptions
from client.purchase.buyer import Buyer
from client.runs.connection import Connection
from client.serving import ask_queue
from client.serving.ask_queue import AskQueue
from client.serving.asking import open_asker
from client.vendors import transport
from client.vendors.teachers import openai
from client.vendors.teachers.openai import OpenAiLike
from tests.client.shop import Shop
from tests.client.vendors.test_openai import Infinity

TAUGHT = StudentMetadata(taught_by="openai:clip:0123456789abcdef")


@pytest.fixture
def infinity(monkeypatch: pytest.MonkeyPatch) -> Infinity:
    server = Infinity()

    class Served(OpenAiLike):
        def __init__(self, *given: Any, **connection: Any) -> None:
            super().__init__(*given, transport=server, **connection)

    monkeypatch.setattr(openai, "TEACHER", Served)
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(ask_queue, "_SILENCE", 0.0)  # as if so many seconds had passed each time
    return server


def _queue(tmp_path: Path) -> AskQueue:
    ask = AskOptions(
        vendor="http://vendor",
        teacher="openai",
        cache=tmp_path / "cache.db",
        share=0.5,
        budget=10,
        yes=True,
    )
    connection = Connection(ask, None)
    return AskQueue(lambda: open_asker(connection, ask, ["cat"], TAUGHT, NEVER, patience=1.0), None)


def test_a_model_that_embeds_no_images_is_paid_for_once(tmp_path: Path, infinity: Infinity) -> None:
    infinity.embeds_images = False
    queue = _queue(tmp_path)
    queue.connect()
    assert [queue._connected() for _ in range(5)] == [None] * 5
    assert infinity.charged == 1


def test_another_model_that_came_up_later_is_paid_for_once(tmp_path: Path, infinity: Infinity) -> None:
    infinity.trouble = ["unsent"] * 20
    queue = _queue(tmp_path)
    queue.connect()
    infinity.trouble = []
    assert [queue._connected() for _ in range(5)] == [None] * 5
    assert infinity.charged == 2


def test_a_vendor_that_states_its_fingerprint_is_not_paid_to_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)

    @contextmanager
    def teacher(*_: object, **__: object) -> Iterator[Buyer]:
        yield shop.teacher()

    monkeypatch.setattr(Connection, "teacher", teacher)
    ask = AskOptions(vendor="http://vendor", share=0.5)
    asker = open_asker(Connection(ask, None), ask, ["cat"], TAUGHT, NEVER, patience=1.0)
    with pytest.raises(FingerprintChanged) as caught, asker:
        pass
    assert not caught.value.paid_in_vain
    shop.close()
