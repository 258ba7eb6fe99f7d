"""The training methods, by name. Each is data (method.py), in the module of its family, with its loss.

Others are plugged in: registered by a program, or offered by a package (`client.plugins`).
"""

from dataclasses import replace

from client.errors import UsageError
from client.learning.methods import classifiers, rise, simkd, vl2v
from client.learning.methods.method import Loss, Method, View, class_directions, cosine_logits
from client.learning.recipe import RECIPES, SELECTIONS, Recipe
from client.plugins import Plugins

__all__ = [
    "METHODS",
    "METHOD_PLUGINS",
    "Loss",
    "Method",
    "View",
    "all_methods",
    "class_directions",
    "cosine_logits",
    "images_per_domain_of",
    "known_method",
    "method_name",
    "method_of",
    "parse_method",
    "register_method",
    "steps_of",
    "with_steps",
    "without_variants",
]

METHODS = {
    method.name: method for method in (*vl2v.METHODS, *simkd.METHODS, *rise.METHODS, *classifiers.METHODS)
}
METHOD_PLUGINS = Plugins("method", option="--method", group="tuition.methods")
_LOADED: dict[str, Method] = {}


def register_method(method: Method) -> str:
    """Have `--method`, `DistillOptions` and `Variant` know a method by its name; returns the name.

    Raises:
        UsageError: it is none, or has the name of one of Tuition's own.
    """
    _require_sound(method, method.name if isinstance(method, Method) else repr(method))
    if METHODS.get(method.name) not in (None, method):
        raise UsageError(f"{method.name} is a method of Tuition's own: give yours another name.")
    _LOADED[method.name] = method
    return METHOD_PLUGINS.register(method.name, method)


def method_name(given: str | Method) -> str:
    """The name of what stands in options: a method there is registered."""
    return given if isinstance(given, str) else register_method(given)


def all_methods() -> dict[str, Method]:
    """Every method by its name, those that are plugged in behind Tuition's own.

    Raises:
        UsageError: a package offers one that cannot be loaded.
    """
    return METHODS | {name: method_of(name) for name in METHOD_PLUGINS.names() if name not in METHODS}


def known_method(words: str) -> Method | None:
    """The method of `NAME[+VARIANT...]`; `None` where none of that name is loaded, as of "zero-shot"."""
    name = words.partition("+")[0]
    return METHODS.get(name) or _LOADED.get(name)


def method_of(words: str) -> Method:
    """The same of a name that is one; what is plugged in is loaded.

    Raises:
        UsageError: there is no such method, and the message names those that there are; or it cannot be
            loaded.
    """
    if (known := known_method(words)) is not None:
        return known
    name = words.partition("+")[0]
    if not METHOD_PLUGINS.knows(name):
        names = ", ".join([*METHODS, *(each for each in METHOD_PLUGINS.names() if each not in METHODS)])
        raise UsageError(f"There is no method {name!r}. There are: {names}.")
    method = METHOD_PLUGINS.load(name)
    _require_sound(method, name)
    _LOADED[name] = replace(method, name=name)
    return _LOADED[name]


def _require_sound(method: Method, name: str) -> None:
    """Refuse what is no method, or one that contradicts itself.

    Raises:
        UsageError: it is.
    """
    if not isinstance(method, Method):
        raise UsageError(
            f"--method {name} is of type {type(method).__name__}: it has to be a tuition.Method."
        )
    if method.wrong:
        raise UsageError(f"The method {name} cannot be: {method.wrong}.")


def parse_method(words: str, recipe: Recipe) -> tuple[Method, Recipe]:
    """A method as it is named on the command line, `NAME[+VARIANT...]`, and its recipe.

    A variant is another selection: "erm+swad" is `erm` with SWAD's mean of the weights.

    Raises:
        UsageError: there is no such method or variant, and the message names those that there are.
    """
    method = method_of(words)
    for variant in words.split("+")[1:]:
        if variant not in SELECTIONS:
            known = ", ".join(f"+{each}" for each in SELECTIONS)
            raise UsageError(f"There is no variant +{variant} of a method. There are: {known}.")
        recipe = replace(recipe, selection=SELECTIONS[variant])
    return method, recipe


def without_variants(words: str, recipe: Recipe) -> Recipe:
    """A recipe from `parse_method`, before the variants of the method's name.

    Its selection is that of the one of `RECIPES` that it was made from, or else of Tuition's own.
    """
    if "+" not in words:
        return recipe
    plain = next((named for named in RECIPES.values() if _is_but_for_steps(recipe, named)), Recipe())
    return replace(recipe, selection=plain.selection)


def _is_but_for_steps(recipe: Recipe, other: Recipe) -> bool:
    """Whether it trains as another does, in as many steps or in others."""
    in_as_many = replace(recipe, steps=other.steps, align_steps=other.align_steps, passes=other.passes)
    return in_as_many.is_protocol_of(other)


def steps_of(method: Method, recipe: Recipe) -> int:
    """How many steps the last stage takes, the one whose states are chosen from."""
    return recipe.steps if method.trains else recipe.align_steps


def images_per_domain_of(method: Method, recipe: Recipe) -> int:
    """How many images of each source domain are in a batch of that stage."""
    return recipe.images_per_domain if method.trains else recipe.align_images_per_domain


def with_steps(recipe: Recipe, words: str, steps: int | None) -> Recipe:
    """A recipe with another number of steps for a method's student; `None` changes nothing.

    They are those of the last stage, which is the only one of a method that trains nothing on pixels.
    """
    method = known_method(words)
    recipe = recipe.with_steps(steps)
    if steps is None or method is None or method.trains:
        return recipe
    return replace(recipe, align_steps=steps)
