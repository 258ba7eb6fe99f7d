"""The simulated fleet does what its parts allow, and no customer is lost by it."""

from dataclasses import replace

import pytest

from benchmarks.fleet import Costs, Demand, Fleet, Simulation

COSTS = Costs(
    request=0.0,
    image=0.0,
    decode=0.0,
    transaction=0.0,
    books=0.0,
    books_piece=0.0,
    commit=0.0,
    model=0.0,
    model_image=0.0,
)


@pytest.mark.parametrize(
    ("costs", "front_ends", "images", "expected"),
    [
        (replace(COSTS, request=0.01), 1, 0, 100),  # one at a time, behind Python's lock
        (replace(COSTS, request=0.01), 2, 0, 200),
        (replace(COSTS, decode=0.01), 1, 4, 100),  # four images on four cores
        (replace(COSTS, model=0.02, model_image=0.01), 1, 8, 10),  # passes of eight
        (replace(COSTS, books_piece=0.01), 1, 0, 50),  # two pieces a request, by one connection
        (replace(COSTS, commit=0.05), 1, 0, 10),  # two commits a request, and one account
        (replace(COSTS, transaction=0.02, books=0.03), 1, 0, 80),  # eight requests share two transactions
    ],
)
def test_the_slowest_part_bounds_the_rate(
    costs: Costs, front_ends: int, images: int, expected: float
) -> None:
    fleet = Fleet(front_ends, cores=4, books_cores=2)
    callers = 1 if costs.commit or images else 8 * front_ends
    told = Simulation(costs, fleet).ask_in_turn(callers, images, accounts=8, caller=0.0).run(6)
    assert told.rate(1, 6) == pytest.approx(expected, rel=0.15)


def test_front_ends_wait_for_an_account_that_another_has_locked() -> None:
    costs = replace(COSTS, commit=0.02)
    alone, shared = (
        Simulation(costs, Fleet(2)).ask_in_turn(2, 0, accounts=accounts, caller=0.0).run(6).rate(1, 6)
        for accounts in (2, 1)
    )
    assert alone == pytest.approx(50, rel=0.15)
    assert shared == pytest.approx(25, rel=0.15)


def test_a_load_that_it_can_take_is_answered_at_its_rate() -> None:
    costs = replace(COSTS, request=0.001, commit=0.001, model=0.001, model_image=0.0005)
    told = Simulation(costs, Fleet(2)).ask(Demand(400, single=0.5, accounts=50), 10).run(12)
    assert len(told.answered) == pytest.approx(10 * (200 + 200 / 32), rel=0.1)
    assert told.percentile(99) < 0.1


def test_a_device_that_fails_and_books_that_are_away_lose_nobody() -> None:
    costs = replace(COSTS, request=0.001, model=0.01, model_image=0.001)
    demand = Demand(300, single=0.2, accounts=20)
    whole = Simulation(costs, Fleet(2)).ask(demand, 6).run(20)
    hurt = Simulation(costs, Fleet(2)).ask(demand, 6)
    hurt.at(2, hurt.front_ends[0].fail).at(3, lambda: hurt.books.be_away(True))
    told = hurt.at(4, lambda: hurt.books.be_away(False)).run(20)
    assert sorted(came for came, _ in told.answered) == sorted(came for came, _ in whole.answered)
    assert told.refused > 0
    assert told.percentile(99, until=2) == pytest.approx(whole.percentile(99, until=2))
    assert told.percentile(50, since=3, until=4) > 0.25
