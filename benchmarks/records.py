"""The runs that the tables of docs/ are made of, a line each in benchmarks/runs.csv.

What is on record is not run again: not on this machine, and not on another. A line counts as long as it was
made with the images, teacher and configuration of today; delete it to measure it anew, and what lies
of its run in benchmarks/.runs goes with it. Lines that are shorter than the first one lack what was not yet
measured when they were made. Lines of `FORMER_STUDENTS` cannot be measured anew.
"""

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from client.data.bundled_set import ICONS, UNLABELLED
from client.results.run_result import RunResult
from client.runs.cells import Cell
from client.runs.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
_TEACHER = ROOT / "vendor_service" / "models" / "icon_clip" / "open_clip_model.safetensors"
RECORD = ROOT / "benchmarks" / "runs.csv"
TOGETHER = "together"  # the domain that all others lie in together (one_domain.py)
# Under these names other weights are loaded today than those of the runs on record (benchmarks/notebook.md).
FORMER_STUDENTS = ("efficientnet_lite0", "efficientnet_lite2")
# Of a result; its interval follows from the accuracy and the number of images.
_KEPT = tuple(each.name for each in fields(RunResult) if each.name != "out_of_domain_interval")


@dataclass(frozen=True)
class Record:
    """A run on record.

    Attributes:
        made_with: digest of images, teacher and configuration; there is one line of each.
        comparison: which comparison it was run for first.
        teacher: name and fingerprint of the vendor's model, as a table says it; empty if none was asked.
        result: what it came to.
    """

    made_with: str
    comparison: str
    teacher: str
    result: RunResult

    def under(self, method: str) -> "Record":
        """The same run as a row of another table calls it."""
        return replace(self, result=replace(self.result, method=method))


def recorded(path: Path | None = None) -> dict[str, Record]:
    """Every line of a file (`RECORD`), by what its run was made with, in the order of the file."""
    path = path or RECORD
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {line["made_with"]: _parsed(line) for line in csv.DictReader(file)}


def record(records: Iterable[Record], path: Path | None = None) -> None:
    """Add lines to a file (`RECORD`); several benchmarks may do so side by side."""
    path = path or RECORD
    lines = StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    if not path.exists():
        writer.writerow(["made_with", "comparison", "teacher", *_KEPT])
    for each in records:
        result = asdict(replace(each.result, seconds=round(each.result.seconds, 1)))
        writer.writerow([each.made_with, each.comparison, each.teacher, *(result[name] for name in _KEPT)])
    with path.open("a", encoding="utf-8") as file:
        file.write(lines.getvalue())


def made_with(cell: Cell) -> str:
    """What decides what a run comes to, in twelve digits; where the files lie is no part of it."""
    config = {**_said(cell.config), "data": sha256(ICONS), "teacher": sha256(_TEACHER)}
    if (Path(cell.config.data) / TOGETHER).is_dir():
        config["domains"] = TOGETHER
    if cell.labels is not None:  # which images keep theirs follows from style and seed
        config["labels"] = cell.labels
        config.pop("names", None)
    if cell.config.unlabelled:
        names = [Path(folder).name for folder in cell.config.unlabelled]
        folders = sorted(name for name in names if not name.endswith(".csv"))
        config["unlabelled"] = [sha256(UNLABELLED), *folders]
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _said(config: RunConfig) -> dict[str, Any]:
    """Without what is left out or off: a setting that did not exist when a run was made changes nothing.
    `+wise`, which is gone, was off at 1.

    Nor does how unlabelled images are learnt from where there are none, how a weak teacher is weighed (this
    one is not weak), or what batches of fewer than four domains are filled up to (there are four, or a
    benchmark says how many images it takes).
    """
    told = {
        "recipe.interpolation": 1.0,
        **dict(config),
        **{f"recipe.{key}": each for key, each in asdict(config.recipe).items()},
    }
    pools = [] if config.pools else ["recipe.unlabelled_share", "recipe.pseudo_labels"]
    without = {"recipe", "recipe.weigh_teacher", "recipe.domains_in_batch", *pools}
    return {
        key: each for key, each in told.items() if key not in without and each not in (None, False, 0, "", ())
    }


@cache
def sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _parsed(line: dict[str, str]) -> Record:
    return Record(
        line["made_with"],
        line["comparison"],
        line["teacher"],
        RunResult(
            method=line["method"],
            target=line["target"],
            seed=int(line["seed"]),
            in_domain=_measured(line["in_domain"]),
            out_of_domain=float(line["out_of_domain"]),
            queries=int(line["queries"]),
            cost_micros=int(line["cost_micros"]),
            seconds=float(line["seconds"]),
            is_teacher=line["is_teacher"] == "True",
            over_classes=_measured(line["over_classes"]),
            over_twins=_measured(line["over_twins"]),
            in_domain_cross_fitted=_measured(line["in_domain_cross_fitted"]),
            labels=_counted(line["labels"]),
            budget=_counted(line["budget"]),
        ),
    )


def _measured(cell: str | None) -> float | None:
    return float(cell) if cell else None


def _counted(cell: str | None) -> int | None:
    return int(cell) if cell else None
