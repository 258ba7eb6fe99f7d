"""A budget is never exceeded, and any prefix of a purchase is a balanced training set."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from client.buying.budget import Budget, Plan, plan_purchase
from client.buying.queries import Query
from shared.embeddings import Prices

PRICES = Prices(image_micros=100, text_micros=20)
PROMPTS = [Query.text(f"a photo of a {name}") for name in ("cat", "dog")]


def _image(name: str) -> Query:
    return Query("image", f"digest of {name}", name, Path(name).read_bytes)


def _plan(images: list[Query], strata: list[tuple[str, str]], budget: int | None, cached: set[Query]) -> Plan:
    return plan_purchase(
        PROMPTS, images, strata, cached=cached, budget_left=budget, prices=PRICES, seed=3
    )  # fmt: skip


@settings(deadline=None)
@given(st.integers(0, 60), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), max_size=30))
def test_what_is_reserved_and_paid_never_exceeds_the_limit(
    limit: int, requests: list[tuple[int, int]]
) -> None:
    budget = Budget(limit)
    open_requests: list[tuple[int, int]] = []
    paid = 0
    for wanted, charged in requests:
        granted = budget.reserve(wanted)
        open_requests.append((granted, min(granted, charged)))
        assert paid + sum(reserved for reserved, _ in open_requests) <= limit
        if len(open_requests) > 2:
            reserved, charged = open_requests.pop(0)
            budget.settle(reserved, paid=charged)
            paid += charged
        assert budget.spent == paid


def test_threads_share_a_budget_without_overspending() -> None:
    budget = Budget(1000, spent=200)

    def spend(_: int) -> int:
        granted = budget.reserve(3)
        budget.settle(granted, paid=granted)
        return granted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(600))) == 800
    assert budget.left == 0
    assert budget.spent == 1000


def test_no_limit_is_no_limit() -> None:
    assert Budget(None).left is None
    assert Budget(None).reserve(10**9) == 10**9


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=60),
    st.integers(0, 80),
    st.sets(st.integers(0, 59)),
)
def test_a_plan_accounts_for_every_query(
    strata: list[tuple[str, str]], budget: int, cached: set[int]
) -> None:
    images = [_image(str(i)) for i in range(len(strata))]
    plan = _plan(images, strata, budget, {images[i] for i in cached if i < len(images)})
    assert plan.cached + len(plan.to_buy) + plan.unaffordable == len(PROMPTS) + len(images)
    assert len(plan.to_buy) <= budget
    texts = sum(query.kind == "text" for query in plan.to_buy)
    assert plan.cost_micros == 20 * texts + 100 * (len(plan.to_buy) - texts)
    assert [query.kind for query in plan.to_buy] == ["text"] * texts + ["image"] * (len(plan.to_buy) - texts)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=60),
    st.integers(0, 60),
)
def test_any_prefix_is_balanced(strata: list[tuple[str, str]], prefix: int) -> None:
    images = [_image(str(i)) for i in range(len(strata))]
    plan = _plan(images, strata, len(PROMPTS) + prefix, set())
    sizes = Counter(strata)
    rounds = max(plan.by_stratum.values(), default=0)
    for stratum, size in sizes.items():
        assert plan.by_stratum.get(stratum, 0) >= min(size, rounds - 1)


def test_duplicates_are_bought_once() -> None:
    images = [_image("same"), _image("other"), _image("same")]
    plan = _plan(images, [("a", "x")] * 3, None, set())
    assert plan.duplicates == 1
    assert Counter(query.name for query in plan.to_buy if query.kind == "image") == {"same": 1, "other": 1}


def test_the_order_does_not_depend_on_what_is_cached() -> None:
    strata = [(d, c) for d in "ab" for c in "xyz" for _ in range(5)]
    images = [_image(str(i)) for i in range(len(strata))]
    whole = _plan(images, strata, None, set()).to_buy
    assert _plan(images, strata, None, set(whole[:9])).to_buy == whole[9:]


def test_the_plan_says_what_it_buys_by_domain_and_class() -> None:
    plan = _plan([_image("1"), _image("2")], [("line", "cat"), ("solid", "cat")], None, set())
    assert plan.to_json()["to_buy_by_domain_and_class"] == {"line": {"cat": 1}, "solid": {"cat": 1}}
