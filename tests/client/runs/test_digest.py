"""A digest of a stage's inputs changes with each of them, and knows no input that it leaves out."""

from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.data.wording import Wording
from client.learning.recipe import Augmentation, Recipe
from client.runs.config import RunConfig
from client.runs.dataset import DomainInputs, PoolInputs
from client.runs.digest import FileContent, StageInputs, digest_of
from client.runs.freshness import StudentInputs
from client.runs.targets import TargetInputs
from client.runs.trainer import DistillInputs, FeatureInputs
from tests.client.toy import run_config

FILES = (FileContent(Path(__file__)),)
CONFIG = run_config("data", method="vl2v-adip")
FEATURES = FeatureInputs("student", FILES, 32, 0, 6, Augmentation(), "transform", "images")
INPUTS: list[StageInputs] = [
    DomainInputs(Path("root"), "dark", group_by_name=False),
    PoolInputs(("pool",), Path("root"), "red"),
    FEATURES,
    DistillInputs(CONFIG, "images", (np.zeros((2, 3)),), np.zeros(3), "code"),
    StudentInputs(CONFIG, ("cat",), Wording(("a {}",)), "images", "targets", (0, 1), FILES, FILES, "code"),
    TargetInputs(np.zeros(2), np.zeros(2), (0, 1), np.zeros((2, 3)), np.zeros((2, 3))),
]


def test_arrays_count_by_their_values_and_not_by_how_they_lie() -> None:
    rows = np.arange(6.0).reshape(2, 3)

    def told(texts: Any) -> str:
        return digest_of(DistillInputs(CONFIG, "images", (rows,), texts, ""))

    assert told(rows) == told(rows.T.copy().T)
    assert (
        len({told(each) for each in (rows, rows.reshape(3, 2), rows.astype("f4"), rows + 1, rows[:0])}) == 5
    )


def _other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case Path():
            return value / "x"
        case tuple():
            return (*value, value[0])
        case dict():
            return value | {"seed": 1}
        case np.ndarray():
            return value + 1
        case Recipe():
            return replace(value, steps=value.steps + 1)
        case RunConfig():
            return value.changed(seed=value.seed + 1)
        case FeatureInputs():
            return replace(value, seed=value.seed + 1)
        case Augmentation():
            return replace(value, jitter=0.9)
        case _:
            return Wording(("another {}",))


def test_every_kind_of_inputs_is_tried() -> None:
    ours = {each for each in StageInputs.__subclasses__() if each.__module__.startswith("client.")}
    assert ours == {type(inputs) for inputs in INPUTS}


@pytest.mark.parametrize("inputs", INPUTS, ids=lambda inputs: type(inputs).__name__)
def test_every_field_counts(inputs: StageInputs) -> None:
    others = [replace(inputs, **{f.name: _other(getattr(inputs, f.name))}) for f in fields(inputs)]
    digests = [digest_of(each) for each in (inputs, *others)]
    assert len(set(digests)) == 1 + len(fields(inputs))
    assert digest_of(inputs) == digests[0]


def test_every_number_of_a_recipe_counts() -> None:
    others = []
    for field in fields(Recipe):
        change: dict[str, Any] = {
            field.name: Augmentation(style=0.9) if field.name == "augmentation" else 0.123
        }
        others.append(replace(Recipe(), **change))
    digests = {
        digest_of(DistillInputs(CONFIG.changed(recipe=each), "", (np.zeros(1),), None, "")) for each in others
    }
    assert len(digests) == len(others)


def test_a_file_counts_by_what_is_in_it(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("first", "copy", "other"))
    for file, content in ((first, b"weights"), (copy, b"weights"), (other, b"others")):
        file.write_bytes(content)
    digests = [digest_of(replace(FEATURES, weights=(FileContent(file),))) for file in (first, copy, other)]
    assert digests[0] == digests[1] != digests[2]


def test_no_two_values_share_a_digest() -> None:
    values: list[Any] = [
        "",
        "1",
        1,
        1.0,
        True,
        None,
        b"1",
        ("1",),
        ("1", "1"),
        ("11",),
        ((), ("1",)),
        {"1": 1},
    ]

    @dataclass(frozen=True)
    class Anything(StageInputs):
        value: Any

    digests = [digest_of(Anything(value)) for value in values]
    assert all(first != second for first, second in combinations(digests, 2))
    with pytest.raises(TypeError, match="object counts"):
        digest_of(Anything(object()))
