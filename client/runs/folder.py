"""A run's directory: what was asked, what was bought, how training went, and what came out."""

import json
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from client.errors import ClientError, UsageError, unwritable
from client.options.training import PromptOptions
from client.paths import is_there, replace_text
from client.purchase.lock import run_lock
from client.results.records import Begun, MetricsRow, Record, Stage
from client.runs.config import RunConfig
from shared.declared import refusal_words
from shared.embeddings import ModelCard

R = TypeVar("R", bound=Record)

# Options that a run may be given anew: its student is then another.
_MAY_CHANGE = frozenset(PromptOptions.model_fields)


class Mirror(Protocol):
    """Whatever else shows what a run logs."""

    def restart(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show these rows, and nothing that was shown before."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Show one more."""


class RunFolder:
    """Reads and writes the files of one run; JSON files are replaced whole or not at all.

    Attributes:
        path: the directory; the attributes below name the files in it.
        mirror: is told what is logged, and may be `None`.
    """

    def __init__(self, path: Path) -> None:
        self.mirror: Mirror | None = None
        self.path = path
        self.config = path / "config.json"
        self.plan = path / "plan.json"
        self.purchase = path / "purchase.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.aligned = path / "aligned.safetensors"
        self.checkpoint = path / "checkpoint.pt"
        self.student = path / "student.safetensors"
        self.seen = path / "seen.safetensors"
        self.onnx = path / "student.onnx"
        self.exports = path / "exports.json"
        self.answers = path / "answers.csv"
        self.review = path / "review.json"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self.model_card = path / "README.md"
        self.web = path / "web"

    def begin(self, config: RunConfig) -> str:
        """Create the directory, or take up the run that it holds; returns the run's id.

        The id is drawn once, by one process: budget and idempotency keys hang on it, however often the run is
        resumed. The options of a run that has nothing yet, not even a plan, are corrected; and the prompts of
        one that has no student yet. A student of other prompts is replaced (`begin_replacement`).

        Raises:
            UsageError: the directory holds a run with other options, or something else.
            RunBusy: another process begins it, or works on it with options that would be corrected.
            ClientError: it cannot be written.
        """
        wanted = config.to_json()
        if not is_there(self.config):
            self.make(self.config, "not a run")
            with self.claimed():
                if not is_there(self.config):  # nobody has begun it meanwhile
                    self.write(self.config, {**wanted, "run_id": secrets.token_hex(8)})
        run_id, corrected = self._held(wanted)
        if corrected:
            with self.claimed():
                self.write(self.config, {**wanted, "run_id": run_id})
        return run_id

    def make(self, first: Path, otherwise: str) -> None:
        """Create the directory, unless it is there.

        Args:
            first: the file that is written first. Without it the directory may hold nothing, except for what
                a process that was killed left of it.
            otherwise: what the directory is if it holds something else.

        Raises:
            UsageError: it does.
            ClientError: it cannot be written.
        """
        left = {f"{first.name}.part", f"{self.config.name}.lock"}
        try:
            held = {each.name for each in self.path.iterdir()} if self.path.exists() else set()
            if not held <= left and not is_there(first):  # asked last: it may just have been written
                raise UsageError(f"{self.path} exists and is {otherwise}. Choose another --out.")
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def id_of(self, config: RunConfig) -> str | None:
        """The id of the run that `begin` would take up; `None` where there is none. Nothing is written.

        Raises:
            UsageError: the directory holds a run with other options.
        """
        return self._held(config.to_json())[0] if is_there(self.config) else None

    def read_config(self) -> RunConfig:
        """Read the configuration of the run.

        Raises:
            ClientError: there is no run, or its configuration is not what this version of Tuition writes.
        """
        found = self.read(self.config)
        found.pop("run_id", None)
        try:
            return RunConfig.model_validate(found)
        except ValidationError as error:
            raise ClientError(
                f"{self.config} is not what this version of Tuition writes: {refusal_words(error)}"
            ) from error

    def _held(self, wanted: dict[str, Any]) -> tuple[str, bool]:
        """The id of the run in the directory, and whether its options are to be corrected."""
        found = self.read(self.config)
        run_id = found.pop("run_id", None)
        if not isinstance(run_id, str):
            raise UsageError(f"{self.config} is not the configuration of a run. Choose another --out.")
        changed = list(_differences(found, wanted))
        others = list(_differences(found, {**wanted, **{name: found.get(name) for name in _MAY_CHANGE}}))
        if others and self.has_begun:
            raise UsageError(
                f"{self.path} holds a run with other options ({'; '.join(others)}). "
                "Choose another --out, or give the same options to resume it."
            )
        return run_id, bool(changed) and not self.student.exists()

    @property
    def has_begun(self) -> bool:
        """Whether there is more of the run than its options."""
        return any(file.exists() for file in (self.plan, self.metrics, self.student))

    @property
    def replacement(self) -> "RunFolder":
        """Where a finished student's successor is made, while it stands."""
        return RunFolder(self.path / "replacement")

    def begin_replacement(self, config: RunConfig) -> "RunFolder":
        """Make that folder, or take it up: it is of the same run, and knows the model that this began with.

        Of the options, the prompts may be others.

        Raises:
            ClientError: it cannot be written.
        """
        other = self.replacement
        try:
            other.path.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(other.path, error) from error
        other.write(other.config, {**self.read(self.config), **config.to_json()})
        if self.plan.exists() and not other.plan.exists():
            other.write(other.plan, self.read(self.plan))
        return other

    def finish_replacement(self, *, whole: bool = False) -> None:
        """Put the files of the successor in the place of the present ones.

        Until then these stay as they are. What is begun is noted, so that after an interruption another call
        ends it.

        Args:
            whole: whether the successor is finished; otherwise only what was begun is ended.

        Raises:
            ClientError: the folder cannot be written.
        """
        other = self.replacement
        note = other.path / "moving.json"
        try:
            if whole and not note.exists():
                names = sorted(path.name for path in other.path.iterdir() if path.suffix != ".part")
                self.write(note, {"names": names})
            if not note.exists():
                return
            names = self.read(note)["names"]
            for file in (*self._artefacts, self.config):
                moved = other.path / file.name
                if (file.is_dir() and moved.exists()) or file.name not in names:
                    _delete(file)
                if moved.exists():
                    moved.replace(file)
            shutil.rmtree(other.path)
        except OSError as error:
            raise unwritable(self.path, error) from error

    @property
    def _artefacts(self) -> tuple[Path, ...]:
        """The files that a run makes, its configuration aside; the student first."""
        return (
            self.student, self.seen, self.onnx, self.exports, self.summary, self.answers, self.review,
            self.report, self.model_card, self.plan, self.purchase, self.metrics,
            self.tensorboard, self.aligned, self.checkpoint,
        )  # fmt: skip

    def claimed(self) -> AbstractContextManager[None]:
        """Entered by the one process that works on the run, or begins it.

        Raises:
            RunBusy: another works on it.
        """
        return run_lock(self.config)

    def read(self, file: Path) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            ClientError: it is missing or is not a JSON object.
        """
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ClientError(f"{file} does not exist: {self.path} is not a finished run.") from error
        except (OSError, ValueError) as error:
            raise ClientError(f"{file} cannot be read as JSON: {error}") from error
        if not isinstance(value, dict):
            raise ClientError(f"{file} is not a JSON object.")
        return value

    def record(self, kind: type[R], file: Path) -> R:
        """A JSON file of the run as the record that it holds.

        Raises:
            ClientError: it is missing, or is not what this version of Tuition writes.
        """
        try:
            return kind.model_validate(self.read(file))
        except ValidationError as error:
            raise ClientError(f"{file} is not what this version of Tuition writes: {error}") from error

    @property
    def began_with(self) -> ModelCard | None:
        """The vendor's model that the run, or the comparison, began with; `None` where there is none.

        Raises:
            ClientError: the plan is damaged.
        """
        return self.record(Begun, self.plan).model if self.plan.exists() else None

    def write(self, file: Path, value: dict[str, Any]) -> None:
        """Replace a JSON file of the run."""
        self.write_text(file, json.dumps(value, indent=2) + "\n")

    def write_text(self, file: Path, text: str) -> None:
        """Replace a text file of the run; what no UTF-8 holds, as some paths, is written with escapes.

        Raises:
            ClientError: it cannot be written (a full disk, say).
        """
        try:
            _drop_link(file)
            replace_text(file, text)
        except OSError as error:
            raise unwritable(file, error) from error

    def log(self, row: MetricsRow) -> None:
        """Append a line to metrics.jsonl.

        Raises:
            ClientError: it cannot be written.
        """
        line = row.to_json()
        try:
            _drop_link(self.metrics)
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(self.metrics, error) from error
        if self.mirror is not None:
            self.mirror.add(line)

    def rows(self, stage: Stage | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of one stage or of all; one that a crash cut short is left out."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return [row for row in rows if stage in (None, row["stage"])]

    def forget(self, stage: Stage, *, after_step: int) -> None:
        """Drop the logged steps of a stage that are about to be taken again; with all, its seconds too."""
        kept = [
            row
            for row in self.rows()
            if row["stage"] != stage or (after_step > 0 and row.get("step", 0) <= after_step)
        ]
        self.write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        if self.mirror is not None:
            self.mirror.restart(kept)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Log how long the stage took, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.log(MetricsRow(stage=stage, seconds=round(time.monotonic() - started, 3)))

    def seconds(self) -> dict[str, float]:
        """Wall-clock by stage, summed over interruptions; of training, what made the present student."""
        total: dict[str, float] = defaultdict(float)
        for row in self.rows():
            total[row["stage"]] += row.get("seconds", 0.0)
        return {stage: round(seconds, 2) for stage, seconds in total.items()}


class WatchedRun(RunFolder):
    """A run that another process writes; this one reads it and leaves it as it is."""

    def write_text(self, file: Path, text: str) -> None:
        """Leave it to the other process."""

    def log(self, row: MetricsRow) -> None:
        """Leave it to the other process."""


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Which options are others than before, those of the recipe and its augmentation one by one."""
    for name, now in wanted.items():
        before = found.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, {**dict.fromkeys(before), **now})  # or no option any more
        elif before != now:
            yield f"{name}: {before} -> {now}"


def _drop_link(file: Path) -> None:
    """Delete a link in the place of a file: in somebody else's run it may lead to any file of the user's."""
    if file.is_symlink():
        file.unlink()


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
