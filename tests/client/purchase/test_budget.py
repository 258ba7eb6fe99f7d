"""A budget is never exceeded, and any prefix of a purchase is a balanced training set."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.purchase.budget import NOTHING, Budget, price
from client.purchase.plan import PurchasePlan, Tranche, plan_purchase
from client.purchase.selection import SelectionStrategy, image_order
from client.vendors.query import Query, Spending
from shared.embeddings import Prices
from tests.support.figures import holds

PRICES = Prices(image_micros=100, text_micros=20)
_cost = partial(price, prices=PRICES)
PROMPTS = [Query.text(f"a photo of a {name}") for name in ("cat", "dog")]


def _image(name: str) -> Query:
    return Query("image", f"digest of {name}", name, Path(name).read_bytes)


def _plan(
    images: list[Query],
    strata: list[tuple[str, str]],
    budget: Budget,
    cached: set[Query],
    select: SelectionStrategy = "stratified",
) -> PurchasePlan:
    turns = image_order(select, strata, seed=3)
    labelled = Tranche("labelled", [images[turn] for turn in turns], [strata[turn] for turn in turns])
    return plan_purchase([Tranche("texts", PROMPTS), labelled], cached=cached, budget=budget, cost=_cost)


@pytest.mark.parametrize(
    ("queries", "max_spend", "enough"),
    [
        (10, None, "a --budget of at least 13"),
        (None, 250, "a --max-spend of at least 260"),
        (5000, 250, "a --max-spend of at least 260"),
        (10, 250, "a --budget of at least 13 and a --max-spend of at least 260"),
        (13, 260, "the same limits"),  # another process has bought the rest meanwhile
    ],
)
def test_what_suffices_names_the_limits_that_do_not(
    queries: int | None, max_spend: int | None, enough: str
) -> None:
    budget = Budget(queries, max_spend, spent=Spending(5, 100))
    budget.set_aside(Spending(5, 100))
    assert budget.enough_for(Spending(3, 60)) == enough
    assert budget.enough_for(Spending(3, 60), counted_by="--probe") == enough.replace("--budget", "--probe")


@given(
    st.integers(0, 60),
    st.none() | st.integers(0, 3000),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5), st.sampled_from([20, 100])), max_size=30),
)
def test_what_is_reserved_and_paid_never_exceeds_either_limit(
    limit: int, max_spend: int | None, requests: list[tuple[int, int, int]]
) -> None:
    budget = Budget(limit, max_spend)
    open_requests: list[tuple[Spending, Spending]] = []
    paid = NOTHING
    for wanted, charged, micros in requests:
        order = Spending(wanted, wanted * micros)
        if budget.reserve(order):
            charged = min(wanted, charged)
            open_requests.append((order, Spending(charged, charged * micros)))
        held = sum((order for order, _ in open_requests), paid)
        assert held.queries <= limit
        assert max_spend is None or held.cost_micros <= max_spend
        if len(open_requests) > 2:
            order, bill = open_requests.pop(0)
            budget.settle(order, paid=bill)
            paid += bill
        assert budget.spent == paid


def test_a_budget_is_used_to_the_last_query_and_micro() -> None:
    assert Budget(3).reserve(Spending(3, 300))
    assert not Budget(3).reserve(Spending(4, 0))
    assert Budget(None, 300).reserve(Spending(3, 300))
    assert not Budget(None, 300).reserve(Spending(3, 301))
    assert not Budget(3, spent=Spending(1, 0)).reserve(Spending(3, 0))


def test_what_may_be_paid_for_counts_whatever_the_limits_and_the_receipts_say() -> None:
    budget = Budget(10, spent=Spending(2, 0))
    assert budget.reserve(Spending(3, 0))
    budget.set_aside(Spending(4, 0))
    budget.catch_up(Spending(3, 0))
    assert not budget.reserve(Spending(1, 0))
    budget.settle(Spending(3, 0), paid=NOTHING)
    assert budget.spent == Spending(3, 0)
    assert not budget.reserve(Spending(4, 0))
    assert budget.reserve(Spending(3, 0))


def test_threads_share_a_budget_without_overspending() -> None:
    budget = Budget(1000, spent=Spending(200, 0))
    order = Spending(2, 40)

    def spend(_: int) -> int:
        if not budget.reserve(order):
            return 0
        budget.settle(order, paid=order)
        return order.queries

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(600))) == 800
    assert budget.spent == Spending(1000, 400 * 40)
    assert holds(budget.spent.queries, 1000, "queries of a budget")


def test_no_limit_is_no_limit() -> None:
    assert Budget(None).reserve(Spending(10**9, 10**15))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=60),
    st.integers(0, 80),
    st.sets(st.integers(0, 59)),
)
def test_a_plan_accounts_for_every_query(
    strata: list[tuple[str, str]], budget: int, cached: set[int]
) -> None:
    images = [_image(str(i)) for i in range(len(strata))]
    plan = _plan(images, strata, Budget(budget), {images[i] for i in cached if i < len(images)})
    assert plan.cached + len(plan.to_buy) + plan.unaffordable == len(PROMPTS) + len(images)
    assert len(plan.to_buy) <= budget
    texts = sum(query.kind == "text" for query in plan.to_buy)
    assert plan.cost_micros == 20 * texts + 100 * (len(plan.to_buy) - texts)
    assert [query.kind for query in plan.to_buy] == ["text"] * texts + ["image"] * (len(plan.to_buy) - texts)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=60),
    st.integers(0, 60),
)
def test_any_prefix_is_balanced(strata: list[tuple[str, str]], prefix: int) -> None:
    images = [_image(str(i)) for i in range(len(strata))]
    plan = _plan(images, strata, Budget(len(PROMPTS) + prefix), set())
    sizes = Counter(strata)
    rounds = max(plan.by_stratum.values(), default=0)
    for stratum, size in sizes.items():
        assert plan.by_stratum.get(stratum, 0) >= min(size, rounds - 1)


def test_money_may_end_a_plan_before_queries_do() -> None:
    images = [_image(str(i)) for i in range(9)]
    plan = _plan(images, [("a", "x")] * 9, Budget(9, 399), set())
    assert (len(plan.to_buy), plan.cost_micros, plan.unaffordable) == (5, 340, 6)


def test_a_random_selection_is_drawn_from_all_images_alike() -> None:
    strata = [("many", "x")] * 90 + [("few", "x")] * 10
    images = [_image(str(i)) for i in range(100)]
    drawn = _plan(images, strata, Budget(len(PROMPTS) + 20), set(), select="random")
    assert drawn.by_stratum["many", "x"] > 14
    assert drawn == _plan(images, strata, Budget(len(PROMPTS) + 20), set(), select="random")
    balanced = _plan(images, strata, Budget(len(PROMPTS) + 20), set())
    assert balanced.by_stratum == {("many", "x"): 10, ("few", "x"): 10}


def test_a_tranche_is_bought_once_the_one_before_it_is() -> None:
    images, pool = [_image(str(i)) for i in range(4)], [_image(f"pool {i}") for i in range(3)]
    tranches = [
        Tranche("texts", PROMPTS),
        Tranche("labelled", images, [("a", "x")] * 4),
        Tranche("unlabelled", [*pool, images[0]]),
    ]
    plan = plan_purchase(tranches, cached={images[1]}, budget=Budget(6), cost=_cost)
    assert list(plan.to_buy) == [*PROMPTS, images[0], images[2], images[3], pool[0]]
    assert [asdict(tranche) for tranche in plan.tranches] == [
        {"name": "texts", "queries": 2, "cached": 0, "to_buy": 2, "unaffordable": 0, "cost_micros": 40},
        {"name": "labelled", "queries": 4, "cached": 1, "to_buy": 3, "unaffordable": 0, "cost_micros": 300},
        {"name": "unlabelled", "queries": 4, "cached": 0, "to_buy": 1, "unaffordable": 2, "cost_micros": 100},
    ]
    assert (plan.duplicates, plan.cost_micros, plan.budget_left) == (1, 440, 0)
    assert plan.by_stratum == {("a", "x"): 3}


def test_duplicates_are_bought_once() -> None:
    images = [_image("same"), _image("other"), _image("same")]
    plan = _plan(images, [("a", "x")] * 3, Budget(None), set())
    assert plan.duplicates == 1
    assert Counter(query.name for query in plan.to_buy if query.kind == "image") == {"same": 1, "other": 1}


def test_the_order_does_not_depend_on_what_is_cached() -> None:
    strata = [(d, c) for d in "ab" for c in "xyz" for _ in range(5)]
    images = [_image(str(i)) for i in range(len(strata))]
    whole = _plan(images, strata, Budget(None), set()).to_buy
    assert _plan(images, strata, Budget(None), set(whole[:9])).to_buy == whole[9:]


def test_the_plan_says_what_it_buys_by_domain_and_class() -> None:
    plan = _plan([_image("1"), _image("2")], [("line", "cat"), ("solid", "cat")], Budget(None), set())
    assert plan.to_json()["to_buy_by_domain_and_class"] == {"line": {"cat": 1}, "solid": {"cat": 1}}
