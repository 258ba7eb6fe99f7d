"""What makes a run this run and no other, of the options that somebody gave."""

import re
from collections.abc import Sequence
from dataclasses import replace
from glob import escape, has_magic
from pathlib import Path
from typing import Any

from client.api.checks import require_file, require_sound
from client.api.options import DistillOptions, TrainingOptions
from client.data.domains import composed
from client.data.finder import require_name
from client.errors import UsageError
from client.learning.backbones import OPEN_CLIP, native_image_size
from client.learning.methods import METHODS, parse_method, with_steps, without_variants
from client.learning.recipe import RECIPES, Recipe
from client.learning.tensor_file import load_metadata
from client.paths import is_there, resolved, rooted
from client.runs.folder import RunConfig, RunFolder


def config_of(options: DistillOptions) -> RunConfig:
    """What makes a run this run and no other.

    Raises:
        UsageError: a file, a student or a method is not there, or nothing can be learnt by the recipe.
    """
    image_size = student_image_size(options)
    recipe = with_steps(recipe_of(options), options.method, options.steps)
    method, recipe = parse_method(options.method, recipe)
    if (options.unlabelled or options.adapt) and not method.learns_unlabelled:
        able = ", ".join(each.name for each in METHODS.values() if each.learns_unlabelled)
        raise UsageError(
            f"The method {method.name} learns from labelled images alone: leave out --unlabelled and "
            f"--adapt, or take one of {able}."
        )
    weights = options.student_weights
    return RunConfig(
        data=str(rooted(options.data)),
        target_domain=None if options.target_domain is None else composed(options.target_domain),
        method=options.method,
        student=options.student,
        image_size=image_size,
        seed=options.seed,
        select=options.select,
        recipe=recipe,
        student_weights=None if weights is None else str(resolved(weights)),
        group_by_name=options.group_by_name,
        unlabelled=pool_words(options.unlabelled),
        adapt=pool_words(options.adapt),
    )


def as_begun(config: RunConfig, run: RunFolder) -> RunConfig:
    """A run as its folder has it, if an earlier version began it: of a link to a table it noted the file.

    What the run has trained depends on it.

    Raises:
        ClientError: the folder's configuration cannot be read.
    """
    behind = resolved(Path(config.data))
    return replace(config, data=str(behind)) if run.learns_from(behind) else config


def next_options(run: Path | str, **changes: Any) -> DistillOptions:  # noqa: ANN401 (as each option has it)
    """The options of a run's next generation: another student, from the last one's weights.

    Everything is as it was there: images, domain held out, method, student, seed. Another `method` has the
    variants that it names (+swad), and not those of then. Images without labels are those of then and
    those of `changes` together. The folder is named after the run's, with a number. Images that the last
    student was trained on are not held out, and refused in a target domain. With `leave_one_out`, the
    students that measure begin as the first generation did, for the last one's weights have seen every
    domain.

    Args:
        run: the folder of a finished run.
        changes: options that are given another value, by their names in `DistillOptions`.

    Raises:
        ClientError: there is no finished run.
    """
    before = RunFolder(Path(run))
    config = before.read_config()
    load_metadata(before.student)
    said: dict[str, Any] = {
        "data": config.data, "target_domain": config.target_domain, "method": config.method,
        "student": config.student, "image_size": config.image_size, "seed": config.seed,
        "select": config.select, "recipe": config.recipe, "group_by_name": config.group_by_name,
        "out": _numbered_on(before.path),
    }  # fmt: skip
    if "method" in changes:  # the variants are the last one's
        said["recipe"] = without_variants(config.method, config.recipe)
    if not config.student.startswith(OPEN_CLIP):  # a CLIP's weights go with its own texts
        said["student_weights"] = before.student
    pools = {
        name: (*getattr(config, name), *pool_words(changes.pop(name, ()))) for name in ("unlabelled", "adapt")
    }
    return DistillOptions(**{**said, **changes, **pools})


def _numbered_on(folder: Path) -> Path:
    """The name of the generation after that in a folder: icons, icons-2, icons-3."""
    folder = resolved(folder)
    stem, number = folder.name, 1
    if found := re.fullmatch(r"(.+)-(\d{1,4})", folder.name):
        stem, number = found[1], int(found[2])
    return folder.with_name(f"{stem}-{number + 1}")


def pool_words(words: Sequence[str | Path]) -> tuple[str, ...]:
    """Where unlabelled images are, wherever the command is run from.

    The folder that it is run from is no part of a pattern, whatever its name.

    Raises:
        UsageError: a name is empty.
    """
    for word in words:
        require_name(str(word))
    return tuple(str(_rooted_word(Path(word))) for word in words)


def _rooted_word(word: Path) -> Path:
    is_pattern = has_magic(str(word)) and not is_there(word)
    return Path(escape(str(Path.cwd()))) / word if is_pattern else word.absolute()


def student_image_size(options: TrainingOptions) -> int:
    """Side of the student's input in pixels.

    Raises:
        UsageError: the student's weights are not a file, or nobody knows its name.
    """
    require_file("--student-weights", options.student_weights)
    native = native_image_size(options.student)  # asked in any case: it refuses a name that nobody knows
    return options.image_size or native


def recipe_of(options: TrainingOptions) -> Recipe:
    """The recipe that is meant, without the method's variants.

    Raises:
        UsageError: nothing can be learnt by it.
    """
    recipe = options.recipe if isinstance(options.recipe, Recipe) else RECIPES[options.recipe]
    require_sound(recipe)
    return recipe
