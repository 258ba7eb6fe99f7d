"""Students that ask about what they are unsure of, and the next ones, which learn from what was asked.

    python -m benchmarks.generations

A style of the bundled icons is held out. Three tenths of its images come first: the student asks about a
quarter of them, the least sure, and these are kept. The next student learns from them as well, and meets the
next three tenths; the one after that learns from both. All are tested on the last four tenths, about which
nobody learns anything. Variants of one drawing are in one part. Runs are kept in benchmarks/.runs, and a
finished one is not trained again.
"""

import argparse
import csv
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

import tuition
from benchmarks.deferral import Probabilities, accuracy, asked_vendor
from benchmarks.runs import RUNS, customer, icons, parser_of_runs, pool
from client import DistillOptions
from client.data.examples import Example
from client.data.kept_images import KeptImages
from client.data.listing import list_folder
from client.data.pixels import PixelStore
from client.data.splits import never_parted
from client.results.comparison_table import Spread
from client.runs.connection import Connection
from client.serving.answers import combined
from client.serving.selection import least_sure

ASKED = 0.25
GENERATIONS = 3
# Where the images of the style end that the first student meets, and those that the second one meets.
_MET = (0.3, 0.6)


@dataclass(frozen=True)
class Generation:
    """What one student came to, on images that nobody learnt from.

    Attributes:
        alone: accuracy of the student.
        deferring: the same, where the vendor answers with it about a quarter of the images.
        teacher: accuracy of the vendor's model about all of them.
        queries: what was paid for until then: to train, and to ask about images that came.
    """

    alone: float
    deferring: float
    teacher: float
    queries: int


def main() -> None:
    """Train what has not been trained, then print the table."""
    arguments = parser_of_runs(__doc__, targets=["emoji", "pixel"], seeds=[0, 1, 2]).parse_args()
    print("| held out | generation | alone | with a quarter asked | teacher | queries in all |")
    print("|---" * 6 + "|")
    with customer() as connection:
        for target in arguments.targets:
            runs = [list(_generations(arguments, connection, target, seed)) for seed in arguments.seeds]
            for number, each in enumerate(zip(*runs, strict=True)):
                cells = (
                    Spread.of([getattr(one, name) for one in each]).show() for name in ("alone", "deferring")
                )
                queries = round(fmean(one.queries for one in each))
                teacher = f"{100 * each[0].teacher:.1f}"
                print(f"| {target} | {number} | {' | '.join(cells)} | {teacher} | {queries} |", flush=True)


def _generations(
    arguments: argparse.Namespace, connection: Connection, target: str, seed: int
) -> Iterator[Generation]:
    """Each generation of one student."""
    student, image_size, steps = arguments.student, arguments.image_size, arguments.steps
    name = f"generations-of-drawings-{target}-{student}-{image_size}px-{steps}-seed{seed}"
    parts, rest = _parts(target)
    bought = connection.options.model_dump(include={"vendor", "api_key_file", "cache"})
    options = DistillOptions(
        data=_table(target, rest), target_domain=target, unlabelled=pool(target), group_by_name=True,
        student=student, image_size=image_size, steps=steps, seed=seed,
        out=RUNS / name, budget=10**6, yes=True, device="cpu", **bought,
    )  # fmt: skip
    queries = 0
    for number in range(GENERATIONS):
        run = tuition.distill(options)
        queries = queries or run.summary.queries_bought + run.summary.queries_cached
        tests = _Images(connection, run, parts[-1])
        yield Generation(
            accuracy(tests.own, tests.labels),
            accuracy(tests.together(least_sure(tests.own.max(axis=1), ASKED)), tests.labels),
            accuracy(tests.teacher, tests.labels),
            queries,
        )
        if number + 1 < GENERATIONS:
            met = _Images(connection, run, parts[number])
            asked = np.flatnonzero(least_sure(met.own.max(axis=1), ASKED))
            kept = RUNS / f"{name}-kept-{number}"
            stopped = KeptImages(kept, at_most=10**6).keep(
                parts[number][row].path.read_bytes() for row in asked.tolist()
            )
            assert not stopped, stopped
            queries += len(asked)
            options = tuition.next_options(
                run.path, adapt=(kept,), out=RUNS / f"{name}-{number + 1}",
                budget=10**6, yes=True, device="cpu", **bought,
            )  # fmt: skip


class _Images:
    """Images that a student meets, and what student and teacher say of them."""

    def __init__(self, connection: Connection, run: tuition.Run, examples: Sequence[Example]) -> None:
        student = run.student("cpu")
        pixels, _ = PixelStore(examples, None).load(range(len(examples)), student.image_size)
        self.labels = np.array([each.label for each in examples])
        self.own: Probabilities = student.probabilities(pixels)
        self.teacher = asked_vendor(connection, examples, student)

    def together(self, asked: NDArray[np.bool_]) -> Probabilities:
        """The answers, where the vendor answers with the student about some."""
        return np.where(asked[:, None], combined(self.own, self.teacher), self.own)


def _parts(target: str) -> tuple[list[list[Example]], list[Example]]:
    """The images of a style in the three parts, no drawing in two; and those of the last and other styles."""
    folder = list_folder(icons())
    examples, _ = folder.read(folder.domains)
    of_style = [each for each in examples if each.domain == target]
    drawings: dict[tuple[str, str], list[Example]] = {}
    for each, drawing in zip(of_style, never_parted(of_style), strict=True):
        drawings.setdefault(drawing, []).append(each)
    groups, ends = list(drawings.values()), [int(share * len(of_style)) for share in _MET]
    parts: list[list[Example]] = [[] for _ in range(GENERATIONS)]
    drawn = 0
    for number in np.random.default_rng(0).permutation(len(groups)).tolist():
        parts[bisect_right(ends, drawn)] += groups[number]
        drawn += len(groups[number])
    return parts, [each for each in examples if each.domain != target] + parts[-1]


def _table(target: str, examples: Sequence[Example]) -> Path:
    """A labelled set of some of the icons."""
    path = RUNS / f"generations-of-drawings-{target}.csv"
    classes = list_folder(icons()).classes
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "domain"))
        writer.writerows((each.path, classes[each.label], each.domain) for each in examples)
    return path


if __name__ == "__main__":
    main()
