"""The next generation of a run: another student, from the last one's weights."""

import re
from pathlib import Path
from typing import Any

from client.api.settling import pool_words
from client.errors import UsageError
from client.learning.backbones import OPEN_CLIP
from client.learning.methods import without_variants
from client.learning.tensor_file import load_metadata
from client.options.training import DistillOptions, RunOptions
from client.paths import resolved
from client.plugins import PYTHON
from client.runs.folder import RunFolder


def next_options(run: Path | str, **changes: Any) -> DistillOptions:  # noqa: ANN401 (as each option has it)
    """The options of a run's next generation: another student, from the last one's weights.

    Everything is as it was there: images, domain held out, method, student, seed. Another `method` has the
    variants that it names (+swad), and not those of then. Images without labels are those of then and those
    of `changes` together. The folder is named after the run's, with a number. Images that the last student
    was trained on are not held out, and refused in a target domain. With `leave_one_out`, the students that
    measure begin as the first generation did, for the last one's weights have seen every domain.

    Args:
        run: the folder of a finished run.
        changes: options that are given another value, by their names in `DistillOptions`.

    Raises:
        ClientError: there is no finished run.
    """
    return of_next(Path(run), DistillOptions(**changes))


def of_next(run: Path, options: DistillOptions) -> DistillOptions:
    """The same, of options that somebody gave.

    Of what makes a run this run, those that are explicit are otherwise than they were there; images without
    labels are added.

    Raises:
        ClientError: there is no finished run.
    """
    folder = RunFolder(run)
    before = folder.read_config()
    load_metadata(folder.student)
    explicit = options.model_fields_set
    kept: dict[str, Any] = {name: getattr(before, name) for name in RunOptions.model_fields}
    if "method" in explicit:  # the variants are the last one's
        kept["recipe"] = without_variants(before.method, before.recipe)
    kept["student_weights"] = None if before.student.startswith(OPEN_CLIP) else folder.student
    kept |= {"data": before.data, "out": _numbered_on(folder.path), "steps": None, "classes": None}
    if "classes" in explicit:
        del kept["data"]
    for name in ("method", "student", "transform", "select"):
        if name not in explicit and str(kept[name]).startswith(f"{PYTHON}:"):
            raise UsageError(
                f"{folder.path} was made with --{name} {kept[name]}, which is code, and no file says what "
                f"code runs here: give --{name} again."
            )
    changes = {name: value for name, value in kept.items() if name not in explicit}
    for name in ("unlabelled", "adapt"):
        changes[name] = kept[name] + (pool_words(getattr(options, name)) if name in explicit else ())
    return options.model_copy(update=changes)


def _numbered_on(folder: Path) -> Path:
    """The name of the generation after that in a folder: icons, icons-2, icons-3."""
    folder = resolved(folder)
    stem, number = folder.name, 1
    if found := re.fullmatch(r"(.+)-(\d{1,4})", folder.name):
        stem, number = found[1], int(found[2])
    return folder.with_name(f"{stem}-{number + 1}")
