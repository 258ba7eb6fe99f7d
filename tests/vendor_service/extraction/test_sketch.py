"""Sketches: what they estimate, that they merge, and that their size is fixed."""

import hashlib

import numpy as np
import pytest

from shared.encoding import Vector
from vendor_service.extraction.recorder import BUCKETS, buckets_of
from vendor_service.extraction.sketch import Sketch, hashes_of

KEY = b"k" * 32


def digests(first: int, last: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, last)]


def unit_rows(count: int, rank: int = 16, seed: int = 0) -> Vector:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, rank)) @ generator.normal(size=(rank, 16))
    normed: Vector = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return normed


def sketch_of(first: int, last: int, rank: int = 16) -> Sketch:
    sketch = Sketch()
    sketch.add(hashes_of(digests(first, last), KEY), unit_rows(last - first, rank), "fp")
    return sketch


@pytest.mark.parametrize(("count", "error"), [(0, 0.0), (1, 0.0), (511, 0.0), (20_000, 0.1)])
def test_distinct_inputs_are_counted_however_often_they_come(count: int, error: float) -> None:
    hashes = hashes_of(digests(0, count), KEY)
    sketch = Sketch()
    for _ in range(3):
        sketch.add(hashes, unit_rows(count), "fp")
    assert sketch.distinct_inputs == pytest.approx(count, rel=error)


def test_a_merged_sketch_is_that_of_all_inputs_in_any_order() -> None:
    whole = Sketch()
    rows = unit_rows(3000)
    whole.add(hashes_of(digests(0, 3000), KEY), rows, "fp")
    parts = [Sketch() for _ in range(2)]
    for start in range(0, 3000, 100):
        hashes = hashes_of(digests(start, start + 100), KEY)
        parts[start // 100 % 2].add(hashes, rows[start : start + 100], "fp")
    merged = Sketch()
    for each in reversed(parts):
        merged.merge(Sketch.of_stored(*each.stored()))
    assert (merged.inputs == whole.inputs).all()
    assert merged.distinct_inputs == whole.distinct_inputs
    assert merged.effective_rank == pytest.approx(whole.effective_rank, rel=1e-3)


def test_a_sketch_has_a_fixed_size() -> None:
    assert len(sketch_of(0, 600).stored()[0]) == len(sketch_of(0, 30_000).stored()[0]) == 512 * 8
    assert len(sketch_of(0, 600).stored()[1]) == len(sketch_of(0, 30_000).stored()[1]) == 65 * 66 // 2 * 4


def test_the_effective_rank_grows_with_the_directions_that_answers_fill() -> None:
    ranks = [sketch_of(0, 2000, rank).effective_rank for rank in (1, 2, 4, 12)]
    assert ranks == sorted(ranks)
    assert ranks[1] < 2.5 < ranks[2] < 4.5 < ranks[3] < 12.5
    one_vector = Sketch()
    one_vector.add(hashes_of(digests(0, 1), KEY), unit_rows(1), "fp")
    assert one_vector.effective_rank == 0.0


@pytest.mark.parametrize("count", [2, 3, 100, 1000])
def test_one_answer_however_often_it_comes_has_no_rank(count: int) -> None:
    sketch = Sketch()
    sketch.add(hashes_of(digests(0, 1), KEY), np.repeat(unit_rows(1), count, axis=0), "fp")
    assert sketch.effective_rank == 0.0
    assert Sketch.of_stored(*sketch.stored()).effective_rank == 0.0


@pytest.mark.parametrize("writings", [1, 2000])
@pytest.mark.parametrize(("answers", "least", "most"), [(1, 0.0, 0.0), (2, 1.0, 1.0), (3, 1.5, 2.0)])
def test_the_rank_is_of_the_answers_however_often_they_were_written(
    writings: int, answers: int, least: float, most: float
) -> None:
    once = Sketch()
    once.add(hashes_of(digests(0, answers), KEY), unit_rows(answers), "fp")
    books = Sketch()
    for _ in range(writings):
        books.merge(once)
        books = Sketch.of_stored(*books.stored())
    assert least <= books.effective_rank <= most


def test_answers_that_vary_a_little_have_a_rank_too() -> None:
    generator = np.random.default_rng(0)
    rows = unit_rows(1) + 0.01 * generator.normal(size=(2000, 2)) @ generator.normal(size=(2, 16))
    sketch = Sketch()
    sketch.add(hashes_of(digests(0, 2000), KEY), rows.astype(np.float32), "fp")
    assert 1.2 < Sketch.of_stored(*sketch.stored()).effective_rank < 2.01


def test_resemblance_is_the_share_of_inputs_of_either_that_both_have() -> None:
    assert sketch_of(0, 200).resemblance(sketch_of(100, 300)) == pytest.approx(1 / 3)
    assert sketch_of(0, 9000).resemblance(sketch_of(3000, 12_000)) == pytest.approx(0.5, abs=0.1)
    assert sketch_of(0, 200).resemblance(sketch_of(200, 300)) == 0.0
    assert Sketch().resemblance(Sketch()) == 0.0


def test_hashes_need_the_key() -> None:
    known = digests(0, 100)
    assert not np.isin(hashes_of(known, KEY), hashes_of(known, b"x" * 32)).any()


def test_buckets_are_those_of_every_version() -> None:
    """Coverage in the books counts them, so no change may rename them."""
    rows = np.stack([np.sin(np.arange(256) * (n + 1)) for n in range(4)]).astype(np.float32)
    assert buckets_of(rows, "fp_0af18def567ad08071995aa76a5061a3") == [2893, 317, 3765, 3582]


def test_what_lies_close_together_shares_buckets_and_what_does_not_does_not() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 256)).astype(np.float32)
    close = rows + 0.01 * generator.normal(size=rows.shape).astype(np.float32)
    before, after = (np.array(buckets_of(each, "fp")) for each in (rows, close))
    assert (before == after).mean() > 0.9
    assert len(set(before.tolist())) > 400
    assert (np.array(buckets_of(rows, "another")) == before).mean() < 0.05
    assert 0 <= before.min() <= before.max() < BUCKETS
