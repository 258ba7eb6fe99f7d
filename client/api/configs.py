"""What makes a run this run and no other, of the options that somebody gave."""

from collections.abc import Sequence
from glob import escape, has_magic
from pathlib import Path

from client.api.checks import require_class_names, require_file, require_named, require_sound
from client.data.domains import composed
from client.data.finder import require_name
from client.errors import UsageError
from client.learning.backbones import native_image_size
from client.learning.methods import METHODS, parse_method, with_steps
from client.learning.recipe import RECIPES, Recipe
from client.options.training import DistillOptions, StudentOptions
from client.paths import is_there, resolved, rooted
from client.runs.folder import RunConfig


def config_of(options: DistillOptions) -> RunConfig:
    """What makes a run this run and no other.

    Raises:
        UsageError: a file, a student or a method is not there, or nothing can be learnt by the recipe.
    """
    require_named(options.labelled)
    require_class_names(options.classes)
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
        data=str(rooted(options.labelled)),
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


def student_image_size(options: StudentOptions) -> int:
    """Side of the student's input in pixels.

    Raises:
        UsageError: the student's weights are not a file, or nobody knows its name.
    """
    require_file("--student-weights", options.student_weights)
    native = native_image_size(options.student)  # asked in any case: it refuses a name that nobody knows
    return options.image_size or native


def recipe_of(options: StudentOptions) -> Recipe:
    """The recipe that is meant, without the method's variants.

    Raises:
        UsageError: nothing can be learnt by it.
    """
    recipe = options.recipe if isinstance(options.recipe, Recipe) else RECIPES[options.recipe]
    require_sound(recipe)
    return recipe
