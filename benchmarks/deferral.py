"""Students that ask their teacher about the images of which they are least sure, in a style they never saw.

    python -m benchmarks.deferral

Each style of the bundled icons is held out in turn. The student learns with the bundled pool; then a share of
unseen style is asked about, the least sure first, and answered in each of several ways. The students are
those of `benchmarks.unlabelled`, kept in benchmarks/.runs.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import RUNS, customer, icons, parser_of_runs
from benchmarks.unlabelled import config_of, name_of, pool
from client.api.students import Student, load_student
from client.data.domains import class_prompts, list_folder
from client.data.examples import Example
from client.data.pixels import PixelStore
from client.learning.recipe import Recipe, Variant
from client.runs.comparison import ComparisonRunner
from client.runs.connection import Connection
from client.runs.teacher_queries import query_of
from client.serving.answers import combined, teacher_probabilities
from client.serving.selection import least_sure
from client.vendors.query import Query

Probabilities = NDArray[np.floating]

SHARES = (0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 1.0)
WAYS: Mapping[str, Callable[[Probabilities, Probabilities], Probabilities]] = {
    "teacher": lambda _, teacher: teacher,
    "product": lambda student, teacher: student * teacher,
    "together": combined,
    "mean": lambda student, teacher: student + teacher,
}


def main() -> None:
    """Train what has not been trained, ask, and print a table for each style, and the mean over them."""
    parser = parser_of_runs(__doc__, on_record=False)
    parser.add_argument("--targets", nargs="+", default=["colour", "emoji", "line", "pixel", "solid"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    with customer() as connection:
        found = {
            target: [_curves(arguments, connection, target, seed) for seed in arguments.seeds]
            for target in arguments.targets
        }
    tables = {target: np.mean(runs, axis=0) for target, runs in found.items()}
    for name, table in {**tables, "mean": np.mean(list(tables.values()), axis=0)}.items():
        _print(name, table)


def _curves(
    arguments: argparse.Namespace, connection: Connection, target: str, seed: int
) -> NDArray[np.float64]:
    """Accuracy in % for each share and way, shape (shares, ways)."""
    row = Variant("vl2v-adip", "vl2v-adip", Recipe().with_steps(arguments.steps))
    config = config_of(arguments, target, [seed], row, pool(target))
    comparison = ComparisonRunner(config, RUNS / name_of(config), connection, device="cpu")
    comparison.execute()
    student = load_student(comparison.cells[0].run.path, device="cpu")
    examples, _ = list_folder(icons()).read([target])
    labels = np.array([example.label for example in examples])
    pixels, _ = PixelStore(examples, None).load(range(len(examples)), student.image_size)
    own = student.probabilities(pixels)
    asked = asked_vendor(connection, examples, student)
    rows = [
        [
            100 * accuracy(np.where(chosen[:, None], answer(own, asked), own), labels)
            for answer in WAYS.values()
        ]
        for chosen in (least_sure(own.max(axis=1), share) for share in SHARES)
    ]
    return np.array(rows)


def asked_vendor(connection: Connection, examples: Sequence[Example], student: Student) -> Probabilities:
    """What the vendor's model says of images, calibrated as it was for a student, shape (n, classes)."""
    prompts = [Query.text(prompt) for prompt in class_prompts(student.classes)]
    images = [query_of(example) for example in examples]
    with connection.teacher(run_id="deferral", budget=None) as teacher:
        teacher.buy([*prompts, *images])
        texts, vectors = teacher.lookup(prompts)[0], teacher.lookup(images)[0]
    return teacher_probabilities(vectors, texts, float(student.metadata["teacher_temperature"]))


def accuracy(probabilities: Probabilities, labels: NDArray[np.int_]) -> float:
    """How often the most probable class is right."""
    return fmean((probabilities.argmax(axis=1) == labels).tolist())


def _print(name: str, table: NDArray[np.float64]) -> None:
    print(f"\n| {name}: asked about | " + " | ".join(WAYS) + " |")
    print("|---" * (len(WAYS) + 1) + "|")
    for share, row in zip(SHARES, table, strict=True):
        print(f"| {100 * share:.0f}% | " + " | ".join(f"{each:.1f}" for each in row) + " |", flush=True)


if __name__ == "__main__":
    main()
