"""The options that somebody gave, settled: what makes a run this run and no other."""

from collections.abc import Sequence
from glob import escape, has_magic
from pathlib import Path
from typing import Any, TypeVar

from client.api.checks import require_class_names, require_named
from client.data.finder import require_name
from client.data.names import composed
from client.data.own_set import write_set
from client.data.sources.source import Kept, rooted_data
from client.errors import UsageError
from client.learning.backbones import native_image_size, student_name
from client.learning.methods import METHODS, method_name, method_of, parse_method, with_steps
from client.learning.recipe import RECIPES, Recipe
from client.learning.views import transform_name
from client.options.training import (
    CompareOptions,
    DistillOptions,
    ImageOptions,
    PromptOptions,
    StudentOptions,
)
from client.paths import is_file, is_there, resolved, rooted
from client.progress import ProgressListener
from client.purchase.selection import acquisition_name
from client.runs.config import RunConfig
from client.runs.storage import Storage

_O = TypeVar("_O", DistillOptions, CompareOptions)


def with_files(options: _O, progress: ProgressListener | None) -> _O:
    """The same options, whose data set is a table if it is a Python object; its images are then files.

    Raises:
        UsageError: class names are given as well.
        DataError: it is no data set.
        ClientError: it raises, or cannot be written.
    """
    if options.dataset is None:
        return options
    if getattr(options, "classes", None) is not None:
        raise UsageError("A `dataset` has labels: leave out `classes`, which is for images that have none.")
    storage = Storage(options, progress)
    total = len(options.dataset) if hasattr(options.dataset, "__len__") else 0
    with storage.display.track("Writing the data set", total) as advance:
        table = write_set(options.dataset, storage.sets, lambda done: advance(done, ""))
    return options.model_copy(update={"data": table, "dataset": None})


def run_config(options: DistillOptions) -> RunConfig:
    """The configuration of a run that somebody asks for.

    Raises:
        UsageError: a file, a student or a method is not there, or the method takes no such images.
    """
    require_named(options.labelled)
    require_class_names(options.classes)
    settled = settled_options(options, options, options)
    name = method_name(options.method)
    method_of(name)  # from here on it is known
    recipe = with_steps(settled["recipe"], name, options.steps)
    method, settled["recipe"] = parse_method(name, recipe)
    adapt = pool_words(options.adapt)
    if (settled["unlabelled"] or adapt) and not method.learns_unlabelled:
        able = ", ".join(each.name for each in METHODS.values() if each.learns_unlabelled)
        raise UsageError(
            f"The method {method.name} learns from labelled images alone: leave out --unlabelled and "
            f"--adapt, or take one of {able}."
        )
    target = None if options.target_domain is None else composed(options.target_domain)
    return RunConfig(**settled, target_domain=target, adapt=adapt, method=name, seed=options.seed)


def settled_options(images: ImageOptions, prompts: PromptOptions, student: StudentOptions) -> dict[str, Any]:
    """The options that runs of one comparison share, settled, by their names; the recipe is without variants.

    Raises:
        UsageError: a file is none, nobody knows the student's name, or a name is empty.
    """
    weights = student.student_weights
    if weights is not None and not is_file(weights):
        raise UsageError(f"--student-weights {weights} is not a file.")
    network = student_name(student.student)
    native = native_image_size(network)  # asked in any case: it refuses a name that nobody knows
    recipe = student.recipe if isinstance(student.recipe, Recipe) else RECIPES[student.recipe]
    return {
        "data": rooted_data(images.labelled),
        "unlabelled": pool_words(images.unlabelled),
        "layout": images.layout,
        "columns": images.columns,
        "group_by_name": images.group_by_name,
        "select": acquisition_name(images.select),
        "prompt": prompts.prompt,
        "prompts": _rooted_file("--prompts", prompts.prompts),
        "names": _rooted_file("--names", prompts.names),
        "student": network,
        "transform": None if student.transform is None else transform_name(student.transform),
        "student_weights": None if weights is None else resolved(weights),
        "image_size": student.image_size or native,
        "mixed_precision": student.mixed_precision,
        "recipe": recipe,
    }


def _rooted_file(option: str, file: Path | None) -> Path | None:
    if file is not None and not is_file(file):
        raise UsageError(f"{option} {file} is not a file.")
    return None if file is None else rooted(file)


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
    if (kept := Kept.of(word)) is not None:
        return Path(kept.rooted)
    is_pattern = has_magic(str(word)) and not is_there(word)
    return Path(escape(str(Path.cwd()))) / word if is_pattern else word.absolute()
