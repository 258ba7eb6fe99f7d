"""How well scores tell things of no class from things of a student's classes, and what a threshold does.

    python -m benchmarks.none_of_these

A fifth of the classes of the bundled icons is left out, drawn anew by each seed, and a style is held out. The
student learns the other classes in the other styles, from labelled images alone. Images of the classes that
were left out are things of no class. Each threshold is the one that turns 5% of the hold-outs away. Runs stay
in benchmarks/.runs.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.accuracy import RUNS, customer, icons, parser_of_runs
from client.data.domains import class_prompts, list_folder
from client.data.examples import Example
from client.data.pixels import PixelStore
from client.learning.recipe import Recipe, Variant
from client.learning.stages import plain_features
from client.learning.student import StudentNetwork
from client.learning.student_file import load_student
from client.runs.cells import Cell
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.connection import Connection
from client.runs.dataset import read_dataset
from client.runs.teacher_queries import query_of
from client.serving.answers import combined, teacher_probabilities
from client.vendors.query import Query

Floats = NDArray[np.floating]

LEFT_OUT = 0.2
FALSE_REJECTS = 0.05
# The score that is fitted on training images as well, as the client does it.
TEACHERS = "teacher: cosine to a class text"
_SPLITS = 50


@dataclass(frozen=True)
class Said:
    """What student and teacher say of some images.

    Attributes:
        labels: their classes, shape (n,); -1 for a thing of no class.
        student: unit embeddings of the student, shape (n, d).
        teacher: those of the teacher, shape (n, d).
        own: the student's probabilities, shape (n, classes).
        asked: the teacher's.
    """

    labels: NDArray[np.int_]
    student: Floats
    teacher: Floats
    own: Floats
    asked: Floats


@dataclass(frozen=True)
class Groups:
    """The groups of images that a student is asked about.

    Attributes:
        train: images that it learnt from.
        held_out: images of the hold-outs.
        unseen: images of its classes in the style that it never saw.
        none: things of no class in the styles that it learnt.
        none_unseen: things of no class in the style that it never saw.
    """

    train: Said
    held_out: Said
    unseen: Said
    none: Said
    none_unseen: Said


@dataclass(frozen=True)
class Scores:
    """One score of each group, of shape (n,) each."""

    train: Floats
    held_out: Floats
    unseen: Floats
    none: Floats
    none_unseen: Floats


@dataclass(frozen=True)
class Knowledge:
    """What scores may be made of, beside what is said of an image.

    Attributes:
        texts: unit class texts, shape (classes, d).
        temperature: of the student's class scores.
        teacher_temperature: of the teacher's.
        train: what is said of the images that were learnt from.
    """

    texts: Floats
    temperature: float
    teacher_temperature: float
    train: Said


def _logits(embeddings: Floats, know: Knowledge, temperature: float) -> Floats:
    return 100 / temperature * (embeddings @ know.texts.T)


def _energy(logits: Floats) -> Floats:
    top = logits.max(axis=1, keepdims=True)
    energy: Floats = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return energy


def _entropy(probabilities: Floats) -> Floats:
    sure: Floats = (probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
    return sure


def _margin(probabilities: Floats) -> Floats:
    best = np.sort(probabilities, axis=1)
    margin: Floats = best[:, -1] - best[:, -2]
    return margin


def _nearest_mean(embeddings: Floats, train: Floats, labels: NDArray[np.int_]) -> Floats:
    means = np.stack([train[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest: Floats = (embeddings @ means.T).max(axis=1)
    return nearest


def student_scores(said: Said, know: Knowledge) -> dict[str, Floats]:
    """Scores that take the student alone, of shape (n,): the surer that it shows some class, the higher."""
    return {
        "highest probability": said.own.max(axis=1),
        "entropy": _entropy(said.own),
        "margin": _margin(said.own),
        "energy": _energy(_logits(said.student, know, know.temperature)),
        "cosine to a class text": (said.student @ know.texts.T).max(axis=1),
        "cosine to a class mean": _nearest_mean(said.student, know.train.student, know.train.labels),
        "cosine to a training image": (said.student @ know.train.student.T).max(axis=1),
    }


def deferral_scores(said: Said, know: Knowledge) -> dict[str, Floats]:
    """Scores that take the teacher as well, likewise."""
    return {
        "teacher: highest probability": said.asked.max(axis=1),
        "teacher: energy": _energy(_logits(said.teacher, know, know.teacher_temperature)),
        TEACHERS: (said.teacher @ know.texts.T).max(axis=1),
        "teacher: cosine to a class mean": _nearest_mean(said.teacher, know.train.teacher, know.train.labels),
        "both: highest probability together": combined(said.own, said.asked).max(axis=1),
        "both: product of highest probabilities": said.own.max(axis=1) * said.asked.max(axis=1),
        "both: sum of cosines to a class text": ((said.student + said.teacher) @ know.texts.T).max(axis=1),
    }


def main() -> None:
    """Train what has not been trained, and print a table for each style, the means over seeds."""
    parser = parser_of_runs(__doc__, on_record=False)
    parser.add_argument("--targets", nargs="+", default=["emoji"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    with customer() as connection:
        for target in arguments.targets:
            found = [_measured(arguments, connection, target, seed) for seed in arguments.seeds]
            print(f"\n{target} held out, seeds {', '.join(map(str, arguments.seeds))}")
            _print({name: [each[name] for each in found] for name in found[0]})


def known_classes(seed: int) -> tuple[Path, list[str]]:
    """The bundled icons without the classes that this seed leaves out, and the names of those."""
    classes = list_folder(icons()).classes
    drawn = np.random.default_rng(seed).permutation(len(classes))[: round(LEFT_OUT * len(classes))]
    left_out = sorted(classes[position] for position in drawn)
    folder = RUNS / f"known-classes-{seed}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(icons(), part, ignore=shutil.ignore_patterns(*left_out))
        part.rename(folder)
    return folder, left_out


def _trained(arguments: argparse.Namespace, connection: Connection, target: str, seed: int) -> Cell:
    folder, _ = known_classes(seed)
    config = ComparisonConfig(
        data=folder,
        variants=[Variant("vl2v-adip", "vl2v-adip", Recipe().with_steps(arguments.steps))],
        targets=[target],
        seeds=[seed],
        student=arguments.student,
        image_size=arguments.image_size,
    )
    size = f"{arguments.image_size}px-{arguments.steps}"
    out = RUNS / f"none-of-these-{target}-{seed}-{arguments.student}-{size}"
    comparison = ComparisonRunner(config, out, connection, device="cpu")
    comparison.execute()
    return comparison.cells[0]


@dataclass(frozen=True)
class Row:
    """What a score does, in shares from 0 to 1.

    Attributes:
        auroc: that a hold-out has a higher score than a thing of no class in the styles learnt.
        auroc_unseen: the same of images in the style never seen.
        false: share of the hold-outs that a threshold turns away which was not chosen on them, but on the
            other half of them, or on training images.
        false_unseen: share of the images of its classes in the unseen style that the threshold turns away.
        rejected: share of the things of no class that it turns away, in the styles learnt.
        rejected_unseen: the same in the unseen style.
        kept: accuracy among the hold-outs that are kept.
        kept_unseen: accuracy among the images of the unseen style that are kept.
        everything: accuracy among all hold-outs.
        everything_unseen: accuracy among all images of the unseen style.
    """

    auroc: float
    auroc_unseen: float
    false: float
    false_unseen: float
    rejected: float
    rejected_unseen: float
    kept: float
    kept_unseen: float
    everything: float
    everything_unseen: float


def _measured(
    arguments: argparse.Namespace, connection: Connection, target: str, seed: int
) -> dict[str, Row]:
    """Every score of one student."""
    cell = _trained(arguments, connection, target, seed)
    student, metadata = load_student(cell.run.student)
    dataset = read_dataset(cell.config, connection.display)
    examples, _ = list_folder(icons()).read([*dataset.domains, target])
    _, left_out = known_classes(seed)
    classes = list_folder(icons()).classes
    nothing = [each for each in examples if classes[each.label] in left_out]
    unseen, _ = list_folder(Path(cell.config.data)).read([target])
    asked = _Asked(connection, student, dataset.classes, float(metadata["teacher_temperature"]))
    groups = Groups(
        asked.about([dataset.examples[position] for position in dataset.train]),
        asked.about([dataset.examples[position] for position in dataset.holdout]),
        asked.about(unseen),
        asked.about([each for each in nothing if each.domain != target], known=False),
        asked.about([each for each in nothing if each.domain == target], known=False),
    )
    print({field.name: len(getattr(groups, field.name).labels) for field in fields(Groups)}, flush=True)
    know = Knowledge(
        asked.texts, float(student.temperature), float(metadata["teacher_temperature"]), groups.train
    )
    rows: dict[str, Row] = {}
    for scores, together in ((student_scores, False), (deferral_scores, True)):
        by_group = [scores(getattr(groups, field.name), know) for field in fields(Groups)]
        for name in by_group[0]:
            found = Scores(*(each[name] for each in by_group))
            rows[name] = _row(found, groups, found.held_out, together=together)
            if name == TEACHERS:
                rows[f"{name}, fitted on training images"] = _row(found, groups, found.train, together=True)
    return rows


class _Asked:
    """Student and teacher of one run, asked about images."""

    def __init__(
        self, connection: Connection, student: StudentNetwork, classes: Sequence[str], temperature: float
    ) -> None:
        self._connection = connection
        self._student = student
        self._temperature = temperature
        self.texts = self._embedded([Query.text(prompt) for prompt in class_prompts(classes)])

    def about(self, examples: Sequence[Example], *, known: bool = True) -> Said:
        student = self._student
        teacher = self._embedded([query_of(example) for example in examples])
        with torch.no_grad():
            features = plain_features(student, PixelStore(examples, None), range(len(examples)))
            outputs = student.projector(features)
            own = student.probabilities(student.logits(outputs))
        return Said(
            np.array([example.label if known else -1 for example in examples]),
            functional.normalize(outputs, dim=1).double().numpy(),
            teacher,
            own.numpy(),
            teacher_probabilities(teacher, self.texts, self._temperature),
        )

    def _embedded(self, queries: Sequence[Query]) -> Floats:
        with self._connection.teacher(run_id="none-of-these", budget=None) as teacher:
            teacher.buy(queries)
            vectors, have = teacher.lookup(queries)
        assert have.all()
        return vectors


def _row(scores: Scores, groups: Groups, fitted_on: Floats, *, together: bool) -> Row:
    """What a threshold does that turns 5% of some known things away; accuracy is the student's, or both's."""
    threshold = np.quantile(fitted_on, FALSE_REJECTS)
    held_out, unseen, none, none_unseen = scores.held_out, scores.unseen, scores.none, scores.none_unseen
    right, right_unseen = (
        (combined(each.own, each.asked) if together else each.own).argmax(axis=1) == each.labels
        for each in (groups.held_out, groups.unseen)
    )
    fitted_apart = fitted_on is not held_out
    return Row(
        auroc(held_out, none),
        auroc(unseen, none_unseen),
        float((held_out < threshold).mean()) if fitted_apart else _false_rejects(held_out),
        float((unseen < threshold).mean()),
        float((none < threshold).mean()),
        float((none_unseen < threshold).mean()),
        float(right[held_out >= threshold].mean()),
        float(right_unseen[unseen >= threshold].mean()),
        float(right.mean()),
        float(right_unseen.mean()),
    )


def auroc(known: Floats, nothing: Floats) -> float:
    """How often a known thing has the higher score of the two; ties count half."""
    order = np.sort(nothing)
    below, up_to = (np.searchsorted(order, known, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(nothing))


def _false_rejects(held_out: Floats) -> float:
    """Share of hold-outs turned away by thresholds of random other halves, the mean over many."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(_SPLITS):
        one, other = np.array_split(rng.permutation(held_out), 2)
        shares.append((other < np.quantile(one, FALSE_REJECTS)).mean())
    return float(np.mean(shares))


def _print(found: Mapping[str, Sequence[Row]]) -> None:
    names = [field.name for field in fields(Row)]
    print("| score | " + " | ".join(names) + " |")
    print("|---" * (1 + len(names)) + "|")
    for score, rows in found.items():
        cells = [100 * np.mean([getattr(row, name) for row in rows]) for name in names]
        print(f"| {score} | " + " | ".join(f"{each:.1f}" for each in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
