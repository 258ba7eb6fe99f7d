"""Students that ask their teacher about the images of which they are least sure, in a style they never saw.

    python -m benchmarks.deferral

Each style of the bundled icons is held out in turn. The student learns with the bundled pool; then a share of
the unseen style is asked about, the least sure first, and answered by both together. Runs stay in
benchmarks/.runs.
"""

import argparse
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.runs import STYLES, config_of, customer, icons, parser_of_runs, pool, trained
from client.api.students import Student, load_student
from client.data.examples import Example
from client.data.listing import list_folder
from client.data.pixels import PixelStore
from client.data.wording import class_prompts
from client.runs.connection import Connection
from client.runs.teacher_queries import query_of
from client.serving.answers import combined, teacher_probabilities
from client.serving.selection import least_sure
from client.vendors.query import Query

Probabilities = NDArray[np.floating]

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


def main() -> None:
    """Train what has not been trained, ask, and print a row for each style."""
    arguments = parser_of_runs(__doc__, targets=STYLES, seeds=[0]).parse_args()
    print(f"| asked about | {' | '.join(f'{share:.0%}' for share in SHARES)} | the teacher alone |")
    print("|---" * (2 + len(SHARES)) + "|")
    with customer() as connection:
        for target in arguments.targets:
            runs = [_accuracies(arguments, connection, target, seed) for seed in arguments.seeds]
            cells = [f"{100 * fmean(each):.1f}" for each in zip(*runs, strict=True)]
            print(f"| {target} | {' | '.join(cells)} |", flush=True)


def _accuracies(arguments: argparse.Namespace, connection: Connection, target: str, seed: int) -> list[float]:
    """Of one student with each share asked about, and of its teacher."""
    cell = trained(config_of(arguments, target, seed, unlabelled=pool(target)), connection)
    student = load_student(cell.run.path, device="cpu")
    examples, _ = list_folder(icons()).read([target])
    labels = np.array([example.label for example in examples])
    pixels, _ = PixelStore(examples, None).load(range(len(examples)), student.image_size)
    own, teacher = student.probabilities(pixels), asked_vendor(connection, examples, student)
    both = combined(own, teacher)
    asked = [least_sure(own.max(axis=1), share)[:, None] for share in SHARES]
    return [accuracy(each, labels) for each in (*(np.where(rows, both, own) for rows in asked), teacher)]


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


if __name__ == "__main__":
    main()
