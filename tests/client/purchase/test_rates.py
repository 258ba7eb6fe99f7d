"""How long a purchase will take is told from purchases that compare with it, and from no others."""

import pytest

from client.cache.tables import Receipt
from client.purchase.rates import recent_rate
from shared.embeddings import Kind


def _run(
    run: str, start: float, *, batches: int, every: float, images: int = 32, texts: int = 0
) -> list[Receipt]:
    counts: dict[Kind, int] = {"image": images, "text": texts}
    return [
        Receipt(f"{run} {number}", "fp_1", counts, 0, run_id=run, received_at=start + every * number)
        for number in range(batches)
    ]


def test_the_rate_is_that_of_the_last_unbroken_purchase() -> None:
    assert recent_rate([]) is None
    sales = [*_run("run", 0, batches=1, every=0), *_run("run", 100, batches=3, every=5)]
    assert recent_rate(sales) == pytest.approx(64 / 10)


def test_many_small_purchases_say_nothing_of_a_large_one() -> None:
    large = _run("large", 0, batches=50, every=0.5)
    small = [
        sale for n in range(40) for sale in _run(f"small {n}", 1000 + 20 * n, batches=1, every=0, images=1)
    ]
    slow = _run("slow", 5000, batches=2, every=20, images=1)
    assert recent_rate([*small, *slow], {"image": 1500}) is None
    assert recent_rate([*large, *small, *slow], {"image": 1500}) == pytest.approx(64)
    assert recent_rate([*large, *small, *slow], {"image": 5}) == pytest.approx(1 / 20)


def test_texts_say_nothing_of_images() -> None:
    texts = _run("texts", 0, batches=20, every=0.1, images=0, texts=32)
    assert recent_rate(texts, {"image": 100}) is None
    assert recent_rate(texts, {"text": 100}) == pytest.approx(320)


def test_runs_side_by_side_are_told_apart() -> None:
    sales = [*_run("a", 0, batches=11, every=1), *_run("b", 0.5, batches=11, every=2)]
    assert recent_rate(sales, {"image": 100}) == pytest.approx(16)


def test_what_was_too_short_to_measure_is_not() -> None:
    short = _run("run", 1000, batches=3, every=0.1)
    assert recent_rate(short) is None
    measured = _run("run", 0, batches=50, every=0.5)
    assert recent_rate([*measured, *short]) is None  # an older one is no answer
    assert recent_rate([*measured, *short], {"image": 90}) is None
    assert recent_rate([*measured, *short], {"image": 1000}) == pytest.approx(64)


def test_the_time_between_two_commands_of_a_run_is_not_what_the_vendor_takes() -> None:
    first, second = (_run("run", start, batches=2, every=0.1, images=1) for start in (0, 20))
    assert recent_rate([*first, *second]) is None
    assert recent_rate([*first, *second], {"image": 4}) is None
