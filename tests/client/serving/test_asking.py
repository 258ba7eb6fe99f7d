"""Asking a vendor: what is told of a purchase that did not come to its end."""

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from client.learning.student_metadata import StudentMetadata
from client.options.students import AskOptions
from client.purchase import requests
from client.serving.answers import Answer
from client.serving.asking import Asker
from client.vendors import transport
from client.vendors.query import Query
from tests.client.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def _image(number: int) -> Query:
    content = f"image {number}".encode()
    return Query("image", hashlib.sha256(content).hexdigest(), f"{number}.png", lambda: content)


def _asker(shop: Shop) -> Asker:
    options = AskOptions(period="total")
    return Asker(shop.teacher(), ["cat", "dog"], StudentMetadata(), options, patience=20)


def _who(answers: list[Answer | None]) -> list[str]:
    return ["student" if each is None else each.answered_by for each in answers]


@pytest.mark.parametrize("ends", ["quota", "vendor"])
def test_what_was_paid_before_an_error_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Class texts and one image are known; of 200 more, the vendor answers two requests of 32."""
    calls = count()

    def go_away() -> None:
        if next(calls) >= 2:
            raise httpx.ConnectError("away")

    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    asker = _asker(shop)
    asker.ask([_image(0)])
    if ends == "quota":
        shop.vendor.quota = 3 + 64
    else:
        shop.vendor.before = go_away
    said = asker.ask([_image(number) for number in range(201)])
    assert shop.vendor.charged == 3 + 64
    borne = sum(each.cost_micros for each in said.of_each if each is not None)
    assert (said.queries, said.cost_micros, borne) == (64, 6400, 6400)
    assert [_who(said.of_each).count(who) for who in ("cache", "vendor", "student")] == [1, 64, 136]
    assert said.ended


def test_what_cannot_be_shared_out_evenly_is_borne_by_the_first_image(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LARGEST", 1)  # else which image reaches the quota is the threads' order
    asker = _asker(shop)
    asker.ask([_image(0)])
    shop.vendor.quota = 2 + 1 + 3
    asker = Asker(shop.teacher(), ["cow", "dog"], StudentMetadata(), AskOptions(period="total"), patience=20)
    said = asker.ask([_image(number) for number in (0, 1, 2, 3)])
    assert _who(said.of_each) == ["cache", "vendor", "vendor", "student"]
    assert [None if each is None else each.cost_micros for each in said.of_each] == [0, 110, 110, None]


def test_class_texts_that_alone_were_bought_are_borne_by_the_first_image_that_they_answer(shop: Shop) -> None:
    """The images were bought before, as those of a pool are, and the class texts were not."""
    images = [_image(number) for number in range(3)]
    shop.teacher().buy(images[1:])
    shop.vendor.quota = 4  # so that the two texts are bought, and not the first image
    asker = _asker(shop)
    assert asker.recall(images) == [None] * 3
    said = asker.ask(images)
    assert _who(said.of_each) == ["student", "cache", "cache"]
    assert (said.queries, said.cost_micros) == (2, 40)
    assert [None if answer is None else answer.cost_micros for answer in said.of_each] == [None, 40, 0]


def test_classes_whose_names_the_student_keeps_are_not_asked_about_by_their_texts(shop: Shop) -> None:
    images = [_image(number) for number in range(4)]
    teacher = shop.teacher()
    teacher.buy(images[:2])
    names = dict(enumerate(teacher.lookup(images[:2])[0]))
    options = AskOptions(period="total")
    asker = Asker(teacher, ["cat", "dog"], StudentMetadata(teacher_names=names), options, patience=20)
    said = asker.ask(images)
    assert (said.queries, _who(said.of_each)) == (2, ["cache", "cache", "vendor", "vendor"])
