"""What each kind of spending gained where it was measured, to be shown beside a plan."""

from client.learning.methods import parse_method
from client.learning.recipe import Recipe

# Points of accuracy on unseen styles of the bundled icons, three seeds, each on top of the kinds before it:
# docs/results.md, and for unlabelled images docs/experiments.md, over five styles.
GAINED = {"texts": 2.4, "labelled": 1.8, "unlabelled": 2.5, "views": 0.6}


def gains_of(method: str) -> dict[str, float] | None:
    """What each kind of spending gained on the icons; `None` for a method that was not measured so."""
    return GAINED if parse_method(method, Recipe())[0].name == "vl2v-adip" else None
