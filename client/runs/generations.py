"""Runs that begin with the weights of another one's student, and what these weights have seen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.data.examples import Example
from client.data.splits import Split
from client.errors import ClientError, UsageError
from client.learning.student_file import load_student_metadata
from client.learning.student_metadata import StudentMetadata
from client.learning.tensor_file import load_metadata, load_tensors, save_tensors
from client.progress import Display
from client.runs.config import RunConfig
from client.runs.digest import FileContent
from client.runs.folder import RunFolder

_NONE: NDArray[np.int64] = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Seen:
    """Which images the weights were trained on, or chosen by, that a run begins with.

    Attributes:
        images: a number for each image, the first eight bytes of the SHA-256 of what is sent of it, and
            another of its file's SHA-256 where something else is sent; sorted.
        is_whole: whether these are all of them; otherwise there may be others, and nobody can tell.
        weights: the SHA-256 (hex) of the file of these weights; empty where they are no student's.
        refuses: whether a run is refused that would be measured on them. One that is finished is not: its
            numbers leave them out.
        held: the same as `images` of those that were held out, so that the weights were chosen by them. They
            may train or be held out again.
    """

    images: NDArray[np.int64]
    is_whole: bool = True
    weights: str = ""
    refuses: bool = True
    held: NDArray[np.int64] = field(default_factory=lambda: _NONE)

    @property
    def is_anything(self) -> bool:
        """Whether the weights have seen any image, or were chosen by one."""
        return bool(self.images.size or self.held.size)

    def among(self, examples: Sequence[Example]) -> list[int]:
        """The positions of those images that the weights were trained on."""
        return _known(examples, self.images)

    def copies_among(self, examples: Sequence[Example], *, of: Iterable[Example]) -> list[int]:
        """The positions of those images that are copies of others, or of what was seen or held out."""
        return _known(examples, np.concatenate([self.images, self.held, _numbers(of).ravel()]))

    def require_none_of(self, examples: Sequence[Example], *, config: RunConfig) -> None:
        """Refuse a run whose target domain has these images, if the weights were trained on or chosen by any.

        Raises:
            UsageError: they were.
        """
        for met, how in ((self.images, "trained on"), (self.held, "chosen by their answers about")):
            if known := _known(examples, met):
                raise UsageError(
                    f"The weights of {config.student_weights} were {how} {len(known)} of the {len(examples)} "
                    f"images of {config.target_domain}, so a student that begins with them cannot be tested "
                    "on it as on a domain that it has never seen. Hold another domain out, or leave out "
                    "--from and --student-weights: what was bought is in the cache."
                )

    def fixed_splits(
        self, examples: Sequence[Example], fixed_splits: Mapping[Path, Split], *, config: RunConfig
    ) -> dict[Path, Split]:
        """The side of the files whose side is fixed: what was seen is trained on, and the others as before.

        Raises:
            UsageError: a file that was seen is to be held out, and that is refused.
        """
        seen = [examples[position].path for position in self.among(examples)]
        held = [path for path in seen if fixed_splits.get(path) == "holdout"]
        if self.refuses and held:
            raise UsageError(
                f"{config.data} holds out {len(held)} images (e.g. {held[0]}) that the weights of "
                f"{config.student_weights} were trained on: a student that begins with them cannot be "
                "measured on these. Leave their `split` empty, or leave out --from and --student-weights: "
                "what was bought is in the cache."
            )
        return {**fixed_splits, **dict.fromkeys(seen, "train")}

    def write(self, file: Path, trained: Iterable[Example] = (), held: Iterable[Example] = ()) -> str:
        """Write the record of a student that has learnt from further images, and was chosen by others.

        Returns its file's SHA-256.

        Raises:
            ClientError: it cannot be written.
        """
        images = {
            "before": self.images,
            "here": np.unique(_numbers(trained)),
            "held_before": self.held,
            "held_here": np.unique(_numbers(held)),
        }
        tensors = {name: torch.from_numpy(numbers) for name, numbers in images.items()}
        save_tensors(tensors, file, {"weights": self.weights, "is_whole": str(self.is_whole)})
        return FileContent(file).digest().hex()

    def keep(self, run: RunFolder) -> None:
        """Copy it into a run that has no student yet, so that its split stays as it is, come what may."""
        if self.weights and not run.student.exists():
            self.write(run.seen)


NOTHING_SEEN = Seen(_NONE)


def seen_before(config: RunConfig, run: RunFolder | None, display: Display) -> Seen:
    """The images that a run's first weights have seen; a note says where that cannot be told.

    Raises:
        UsageError: they are those of a run that has lost the record of it.
    """
    if config.student_weights is None:
        return NOTHING_SEEN
    weights = config.student_weights
    content = content_of(weights)
    for file in () if run is None else (run.seen, run.replacement.seen):
        copied = _read(file)
        if copied is not None and content in (None, copied[0].weights):
            found = copied[0]
            break
    else:
        if content is None or not _is_student(weights):
            return NOTHING_SEEN
        found = _recorded(weights, content)
    if not found.is_whole:
        display.note_once(
            f"It cannot be told which images the weights of {weights} were trained on: the accuracy may be "
            "measured on some of them."
        )
    return found


def seen_by_student(run: RunFolder) -> Seen:
    """The images that a finished run's student was trained on or chosen by, in it or before it."""
    record = _read(run.seen)
    return NOTHING_SEEN if record is None else replace(record[1], weights="", refuses=False)


def _recorded(weights: Path, content: str) -> Seen:
    """The content of the file beside a student, if it is of this student, whose bytes have that digest."""
    run = RunFolder(weights.parent)
    named, record = load_student_metadata(weights).seen, _read(run.seen)
    if record is not None and content_of(run.seen) == named:
        return replace(record[1], weights=content)
    if named is not None and weights == run.student and run.config.exists():
        raise UsageError(
            f"{run.seen} is missing or is not of the student beside it, so it cannot be told which images "
            f"{weights} was trained on. If {run.path} was being replaced, its own command finishes that. "
            "Otherwise put the file back, or begin with other weights."
        )
    return Seen(NOTHING_SEEN.images, is_whole=False, weights=content)


def _read(file: Path) -> tuple[Seen, Seen] | None:
    """The content that `Seen.write` wrote: seen before the run, and after it; `None` of any other file."""
    try:
        tensors, metadata = load_tensors(file)
        images = {name: tensor.numpy() for name, tensor in tensors.items()}
        before = Seen(
            images["before"],
            metadata["is_whole"] == str(True),
            metadata["weights"],
            held=images["held_before"],
        )
        after = replace(
            before,
            images=np.union1d(before.images, images["here"]),
            held=np.union1d(before.held, images["held_here"]),
        )
    except (ClientError, KeyError):
        return None
    return before, after


def content_of(file: Path) -> str | None:
    """The SHA-256 (hex) of a file's bytes; `None` where it cannot be read."""
    try:
        return FileContent(file).digest().hex()
    except OSError:
        return None


def _known(examples: Sequence[Example], numbers: NDArray[np.int64]) -> list[int]:
    """The positions of those images that have one of these numbers."""
    if not numbers.size:
        return []
    return np.flatnonzero(np.isin(_numbers(examples), numbers).any(axis=1)).tolist()


def _numbers(examples: Iterable[Example]) -> NDArray[np.int64]:
    """Of each image the first eight bytes of two digests, of what is sent and of its file, shape (n, 2).

    Another version of Pillow may send other bytes of the same file.
    """
    digests = ((example.digest, example.file_digest or example.digest) for example in examples)
    first = bytes.fromhex("".join(sent[:16] + file[:16] for sent, file in digests))
    return np.frombuffer(first, ">i8").astype(np.int64).reshape(-1, 2)


def first_weights(weights: Path | None) -> Path | None:
    """The weights that the first of some generations began with, which have seen none of their images.

    Args:
        weights: those that the last one begins with; `None` for those of the backbone's name.

    Returns:
        A file; `None` for those of the name, also where no file tells any more what the first began with.
    """
    passed = set[Path]()
    while weights is not None and _is_student(weights):
        run = _run_of(weights)
        if run is None or weights in passed:
            return None  # a copy of a student's file, or a run that lies where the one before it lay
        passed.add(weights)
        weights = run.read_config().student_weights
    return weights if weights is not None and weights.is_file() else None


def is_adapted(config: RunConfig) -> bool:
    """Whether a run's student, or one that its weights come from, learns from images of the very domain where
    it will work.
    """
    weights = config.student_weights
    return bool(config.adapt) or (weights is not None and bool(_metadata(weights).adapted))


def _run_of(weights: Path) -> RunFolder | None:
    """The run whose student these weights are; `None` of any other file, and of a copy."""
    run = RunFolder(weights.parent)
    lies_there = run.student == weights and run.config.exists()
    return run if lies_there and _is_student(run.student) else None


def _is_student(file: Path) -> bool:
    """Whether a run wrote this file."""
    return _metadata(file).classes is not None


def _metadata(file: Path) -> StudentMetadata:
    """The metadata of a student's file; none of any other file.

    Raises:
        ClientError: what it says is damaged, so that nobody knows what the student has seen.
    """
    try:
        texts = load_metadata(file)
    except ClientError:
        return StudentMetadata()
    return StudentMetadata.from_file(texts) if "classes" in texts else StudentMetadata()
