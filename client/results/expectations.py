"""What each kind of spending gained where it was measured, to be shown beside a plan."""

from client.learning.methods import method_of

# Points of accuracy on unseen styles of the bundled icons, three seeds, each on top of the kinds before it,
# and the first on top of `label-only`, which asks nothing: docs/results.md (96 px and 600 steps),
# and for unlabelled images docs/experiments.md, over five styles.
GAINED = {"texts": -0.9, "labelled": 1.8, "unlabelled": 3.3, "views": 0.6}
# Of further views beside unlabelled images, over three styles (docs/experiments.md): nothing.
VIEWS_BESIDE_A_POOL = -0.1


def gains_of(method: str, *, pool: bool) -> dict[str, float] | None:
    """What each kind of spending gained on the icons; `None` for a method that was not measured so.

    `pool` says whether there are unlabelled images.
    """
    if method_of(method).name != "vl2v-adip":
        return None
    return {**GAINED, "views": VIEWS_BESIDE_A_POOL} if pool else GAINED
