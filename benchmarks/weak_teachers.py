"""Students of weak teachers beside fine-tuning: does a customer who pays for one lose by it?

    python -m benchmarks.weak_teachers --levels 20 40 60 80
    python -m benchmarks.weak_teachers --kinds half-trained --models FOLDER ...

Three kinds of weakness, each at several levels, which are the zero-shot accuracy that is left (and `none`,
which is icon-clip as it is):
`texts` calls a share of the classes by each other's texts; `noise` shakes the embedding of each image, always
in the same way; `half-trained` is icon-clip after a small part of its training
(`python -m examples.train_icon_clip --steps 200`, say). `int8` is icon-clip as the vendor sells it in eight
bits, measured on images of the bundled pool. Its students learn as client/learning/teacher_weights.py says.
Finished runs are in benchmarks/.runs and are not run again.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.runs import RUNS, cells, customer, icons, made_once, parser_of_runs, unpacked
from client.data.bundled_set import UNLABELLED
from client.learning.recipe import Recipe
from client.progress import Display
from client.purchase.buyer import Buyer
from client.results.records import Summary
from client.runs.config import RunConfig
from client.runs.connection import Connection
from client.runs.context import RunContext
from client.runs.distillation import Distillation
from client.runs.folder import RunFolder
from client.runs.memo import Memo
from client.runs.trainer import FeatureInputs
from client.vendors.query import Query
from tests.support.vendor_process import int8_options

# How weak icon-clip must be made to be right on so many percent of the bundled icons.
_SHARES = {20: 0.78, 40: 0.56, 60: 0.33, 80: 0.11}  # of the classes that are called by another's text
_NOISE = {20: 7.3, 40: 4.9, 60: 3.7, 80: 2.45}  # the length of what is added to an embedding of length 1

_TAUGHT_BY_NONE = {"erm": "fine-tuned", "label-only": "labels alone"}

Rows = tuple[NDArray[np.float32], NDArray[np.bool_]]


class WeakTeacher(Buyer):
    """A teacher whose answers are spoilt as they are looked up; what is bought and kept are its own."""

    def __init__(self, teacher: Buyer, spoil: Callable[[Sequence[Query], Rows], Rows]) -> None:
        """Weaken a teacher, which goes on as it is."""
        vars(self).update(vars(teacher))
        self._spoil = spoil

    def lookup(self, queries: Sequence[Query]) -> Rows:
        """What was bought, spoilt."""
        return self._spoil(queries, super().lookup(queries))


@dataclass(frozen=True)
class Weakness:
    """One kind of teacher: its name and level, how the vendor serves it, and what becomes of its answers."""

    kind: str
    level: str
    options: tuple[str, ...] = ()
    spoil: Callable[[Sequence[Query], Rows], Rows] = lambda _, rows: rows


def wrong_texts(share: float) -> Callable[[Sequence[Query], Rows], Rows]:
    """A share of the classes is called by each other's texts."""

    def spoil(queries: Sequence[Query], rows: Rows) -> Rows:
        vectors, have = rows
        if queries and all(query.kind == "text" for query in queries):
            chosen = np.random.default_rng(0).permutation(len(queries))[: round(share * len(queries))]
            vectors[chosen] = vectors[np.roll(chosen, 1)]
        return vectors, have

    return spoil


def noisy_images(length: float) -> Callable[[Sequence[Query], Rows], Rows]:
    """A random vector of this length is added to the embedding of each image, the same one each time."""

    def spoil(queries: Sequence[Query], rows: Rows) -> Rows:
        vectors, have = rows
        for row, query in enumerate(queries):
            if query.kind == "image":
                noise = np.random.default_rng(int(query.digest[:16], 16)).standard_normal(vectors.shape[1])
                shaken = vectors[row] + length * noise / np.linalg.norm(noise)
                vectors[row] = shaken / np.linalg.norm(shaken)
        return vectors, have

    return spoil


def main() -> None:
    """Run what has not been run, and print the table as it grows."""
    parser = parser_of_runs(__doc__, targets=["pixel", "emoji", "colour"], seeds=[0, 1, 2])
    parser.set_defaults(image_size=64)
    parser.add_argument("--kinds", nargs="+", default=["texts", "noise"])
    parser.add_argument("--levels", type=int, nargs="+", default=[80, 60, 40, 20])
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="half-trained, weakest last")
    parser.add_argument("--most", type=int, help="labelled images of a class in a style; all without it")
    arguments = parser.parse_args()
    runs = Runs(arguments)
    print(f"| weakness | right on | {' | '.join(arguments.targets)} | mean | in-domain |")
    print("|---" * (4 + len(arguments.targets)) + "|")
    for method, student in _TAUGHT_BY_NONE.items():
        summaries = runs.of(method)
        print(f"| none is asked: {student} | | {_cells(summaries, arguments.targets)} |", flush=True)
    for weakness in weaknesses(arguments.kinds, arguments.levels, arguments.models):
        summaries = runs.of(weakness)
        right = fmean(s.teacher_check.accuracy for s in summaries if s.teacher_check is not None)
        cells_of_row = _cells(summaries, arguments.targets)
        print(f"| {weakness.kind} | {100 * right:.0f}% | {cells_of_row} |", flush=True)


def weaknesses(kinds: Sequence[str], levels: Sequence[int], models: Sequence[Path]) -> Iterator[Weakness]:
    """All teachers that are wanted."""
    for kind in kinds:
        if kind == "none":
            yield Weakness(kind, "0")
        elif kind == "int8":
            yield Weakness(kind, "0", int8_options(Path(tempfile.mkdtemp()), unpacked(UNLABELLED)))
        elif kind == "texts":
            yield from (Weakness(kind, str(each), spoil=wrong_texts(_SHARES[each])) for each in levels)
        elif kind == "noise":
            yield from (Weakness(kind, str(each), spoil=noisy_images(_NOISE[each])) for each in levels)
        else:
            yield from (Weakness(kind, each.name, ("--model", f"local-dir:{each}")) for each in models)


class Runs:
    """The runs of each teacher: a student for each style that is held out and each seed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """What all of them have in common."""
        self._arguments = arguments
        # The features of a style and a seed are the same whoever teaches.
        self._memo = Memo({FeatureInputs: len(arguments.targets) * len(arguments.seeds)})

    def of(self, taught_by: Weakness | str) -> list[Summary]:
        """What became of the students of one teacher, or of a method that asks none."""
        with ExitStack() as stack:
            options = taught_by.options if isinstance(taught_by, Weakness) else ()
            connection = stack.enter_context(customer(*options))
            return [
                self._run(connection, taught_by, target, seed)
                for target in self._arguments.targets
                for seed in self._arguments.seeds
            ]

    def _run(self, connection: Connection, taught_by: Weakness | str, target: str, seed: int) -> Summary:
        student, size, steps = self._arguments.student, self._arguments.image_size, self._arguments.steps
        recipe = Recipe().with_steps(steps)
        method = name = str(taught_by)
        if isinstance(taught_by, Weakness):
            method, name = "vl2v-adip", f"{taught_by.kind}-{taught_by.level}"
        most = self._arguments.most
        folder = f"weak-{student}-{size}px-{steps}" + ("" if most is None else f"-{most}-a-class")
        run = RunFolder(RUNS / folder / f"{name}-{target}-{seed}")
        data = icons() if most is None else _few(most, target)
        config = RunConfig(
            data=data, target_domain=target, method=method, student=student, image_size=size, seed=seed,
            recipe=recipe,
        )  # fmt: skip
        run.path.parent.mkdir(exist_ok=True)
        run_id = run.begin(config)
        context = RunContext(Display(), "cpu", RUNS / "pixels", self._memo)
        with ExitStack() as stack:
            teacher: Buyer | None = None
            if isinstance(taught_by, Weakness):
                asked = stack.enter_context(connection.teacher(run_id=run_id, budget=None))
                teacher = WeakTeacher(asked, taught_by.spoil)
            summary = Distillation(config, run, teacher, context, onnx=False).execute()
        assert summary is not None
        return summary


def _few(most: int, target: str) -> Path:
    """The bundled icons with so many labelled images of a class in a style, but for the style held out.

    The list of them comes along: by it variants of one drawing stay on one side.
    """

    def choose(folder: Path) -> None:
        for label in icons().glob("*/*"):
            images = sorted(label.iterdir())
            place = folder / label.relative_to(icons())
            place.mkdir(parents=True)
            for image in images if label.parent.name == target else images[:most]:
                shutil.copy(image, place)
        shutil.copy(icons() / "ATTRIBUTION.txt", folder)

    return made_once(f"{icons().parent.name}-{most}-a-class-but-{target}", choose)


def _cells(summaries: Sequence[Summary], targets: Sequence[str]) -> str:
    return cells([[s.accuracy for s in summaries if s.target_domain == target] for target in targets])


if __name__ == "__main__":
    main()
