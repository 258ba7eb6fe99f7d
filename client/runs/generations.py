"""Runs that begin with the weights of another one's student, and what these weights have seen."""

from pathlib import Path

from client.data.domains import composed
from client.errors import ClientError, UsageError
from client.learning.student import load_metadata
from client.runs.folder import RunFolder


def require_unseen(
    before: RunFolder, *, target: str | None, seed: int, holdout: float, group_by_name: bool
) -> None:
    """Refuse a next generation that would be measured on images that a run's student was trained on.

    Args:
        before: the run, finished.
        target: the domain that the next one holds out, if any.
        seed: of its split.
        holdout: the share of each domain that it holds out.
        group_by_name: whether its split keeps files together by their names.

    Raises:
        UsageError: it would be.
        ClientError: a file of the run is missing.
    """
    config = before.read_config()
    if target is not None and composed(target) in before.read(before.plan)["source_domains"]:
        raise UsageError(
            f"The student of {before.path} was trained on {target}, so one that begins with its weights "
            f"cannot be tested on it as on a domain that it has never seen. To hold {target} out, leave out "
            "--from: what was bought is in the cache."
        )
    drawn = (
        (f"--seed {config.seed}", seed == config.seed),
        (f"{'' if config.group_by_name else 'no '}--group-by-name", group_by_name == config.group_by_name),
        (f"a share of {config.recipe.holdout:g} held out", holdout <= config.recipe.holdout),
    )
    if otherwise := [words for words, alike in drawn if not alike]:
        raise UsageError(
            f"{before.path} was split with {' and '.join(otherwise)}. By another split the next student "
            "would be measured on images that this one was trained on. Leave it as it was there, or leave "
            "out --from: what was bought is in the cache."
        )


def first_weights(weights: str | None) -> str | None:
    """The weights that the first of some generations began with, which have seen none of their images.

    Args:
        weights: those that the last one begins with; `None` for those of the backbone's name.

    Returns:
        A file; `None` for those of the name, also where no file tells any more what the first began with.
    """
    passed = set[str]()
    while weights is not None and _is_student(Path(weights)):
        run = RunFolder(Path(weights).parent)
        if run.student != Path(weights) or not run.config.exists() or weights in passed:
            return None  # a copy of a student's file, or a run that lies where the one before it lay
        passed.add(weights)
        weights = run.read_config().student_weights
    return weights if weights is not None and Path(weights).is_file() else None


def _is_student(file: Path) -> bool:
    """Whether a run wrote this file."""
    try:
        return "classes" in load_metadata(file)
    except ClientError:
        return False
