"""The order in which images are bought."""

from hypothesis import given
from hypothesis import strategies as st

from client.purchase.selection import SelectionStrategy, image_order


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=50),
    st.sampled_from(["stratified", "random"]),
    st.integers(0, 3),
)
def test_every_image_comes_once_and_the_order_repeats_itself(
    strata: list[tuple[str, str]], select: SelectionStrategy, seed: int
) -> None:
    order = image_order(select, strata, seed)
    assert sorted(order) == list(range(len(strata)))
    assert order == image_order(select, strata, seed)
