"""The measured gain of each kind of spending, to be shown beside a plan."""

from client.learning.recipe import Recipe

# Points of accuracy on unseen styles of the bundled icons: what asking about the labelled images adds to
# `label-only`, which asks nothing, and what asking about images without labels adds to that. The first table
# of docs/results.md (five styles, three seeds, 128 px and 1,200 steps).
GAINED = {"labelled": 0.4, "unlabelled": 1.8}


def gains_of(method: str, recipe: Recipe, *, held_out: bool) -> dict[str, float] | None:
    """The gain of each kind of spending on the icons; `None` for a method or recipe that was not measured.

    Another number of steps does not matter. What images without labels gain was measured on a style that is
    held out, and says nothing of a run that learns from all styles.
    """
    measured = Recipe().with_steps(1)
    if method != "vl2v-adip" or not recipe.with_steps(1).is_protocol_of(measured):
        return None
    return {kind: gain for kind, gain in GAINED.items() if held_out or kind != "unlabelled"}
