"""How well scores tell things of no class from things of a student's classes.

    python -m benchmarks.none_of_these

A fifth of the classes of the bundled icons is left out, drawn anew by each seed, and a style is held out. The
student learns the other classes in the other styles, from labelled images alone. Images of the classes that
were left out are things of no class. Each threshold is the one that turns 5% of the hold-outs away. Runs stay
in benchmarks/.runs.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.runs import config_of, customer, icons, made_once, parser_of_runs, trained
from client.data.examples import Example
from client.data.listing import list_folder
from client.data.pixels import PixelStore
from client.data.wording import class_prompts
from client.learning.stages import plain_features
from client.learning.student_file import load_student
from client.runs.connection import Connection
from client.runs.dataset import read_dataset
from client.runs.teacher_queries import query_of
from client.vendors.query import Query

LEFT_OUT = 0.2
FALSE_REJECTS = 0.05

# Of images, the surer that they show some class, the higher; shape (n,).
Score = Callable[[Sequence[Example]], NDArray[np.floating]]


def main() -> None:
    """Train what has not been trained, and print a table for each style, the means over seeds."""
    parser = parser_of_runs(__doc__, targets=["emoji"], seeds=[0])
    arguments = parser.parse_args()
    columns = ("own classes, unseen style", "no class", "no class, unseen style")
    with customer() as connection:
        for target in arguments.targets:
            found = [_rejected(arguments, connection, target, seed) for seed in arguments.seeds]
            print(f"\n| {target} held out: rejected | {' | '.join(columns)} |\n{'|---' * 4}|")
            for score in found[0]:
                shares = np.mean([each[score] for each in found], axis=0)
                print(f"| {score} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |", flush=True)


def known_classes(seed: int) -> tuple[Path, list[str]]:
    """The bundled icons without the classes that this seed leaves out, and the names of those."""
    classes = list_folder(icons()).classes
    drawn = np.random.default_rng(seed).permutation(len(classes))[: round(LEFT_OUT * len(classes))]
    left_out = sorted(classes[position] for position in drawn)

    def without(folder: Path) -> None:
        shutil.copytree(icons(), folder, ignore=shutil.ignore_patterns(*left_out))

    return made_once(f"{icons().parent.name}-known-classes-{seed}", without), left_out


def _rejected(
    arguments: argparse.Namespace, connection: Connection, target: str, seed: int
) -> dict[str, list[float]]:
    """By each score of one student, the shares that its threshold turns away."""
    folder, left_out = known_classes(seed)
    cell = trained(config_of(arguments, target, seed, data=folder), connection)
    dataset = read_dataset(cell.config, connection.display)
    everything, classes = list_folder(icons()), list_folder(icons()).classes
    others, _ = everything.read([*dataset.domains, target])
    nothing = [each for each in others if classes[each.label] in left_out]
    unseen, _ = list_folder(folder).read([target])
    groups = (
        unseen,
        [each for each in nothing if each.domain != target],
        [each for each in nothing if each.domain == target],
    )
    train, held_out = ([dataset.examples[row] for row in rows] for rows in (dataset.train, dataset.holdout))
    rejected = {}
    for name, score in _scores(connection, cell.run.student, dataset.classes, train).items():
        threshold = np.quantile(score(held_out), FALSE_REJECTS)
        rejected[name] = [float((score(group) < threshold).mean()) for group in groups]
    return rejected


def _scores(
    connection: Connection, file: Path, classes: Sequence[str], train: Sequence[Example]
) -> dict[str, Score]:
    student, _ = load_student(file)

    def seen(examples: Sequence[Example]) -> Tensor:
        with torch.no_grad():
            features = plain_features(student, PixelStore(examples, None), range(len(examples)))
            outputs: Tensor = student.projector(features)
        return outputs

    def embedded(queries: Sequence[Query]) -> NDArray[np.floating]:
        with connection.teacher(run_id="none-of-these", budget=None) as teacher:
            teacher.buy(queries)
            return teacher.lookup(queries)[0]

    def unit(examples: Sequence[Example]) -> NDArray[np.floating]:
        return functional.normalize(seen(examples), dim=1).double().numpy()

    def entropy(examples: Sequence[Example]) -> NDArray[np.floating]:
        with torch.no_grad():
            probabilities = student.probabilities(student.logits(seen(examples))).numpy()
        return np.asarray((probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1))

    texts = embedded([Query.text(prompt) for prompt in class_prompts(classes)])
    learnt = unit(train)
    return {
        "the student's entropy": entropy,
        "the student's cosine to the nearest training image": lambda examples: np.asarray(
            (unit(examples) @ learnt.T).max(axis=1)
        ),
        "the vendor's cosine to the nearest class text": lambda examples: np.asarray(
            (embedded([query_of(example) for example in examples]) @ texts.T).max(axis=1)
        ),
    }


if __name__ == "__main__":
    main()
