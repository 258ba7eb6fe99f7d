"""Selection: the best state, and SWAD's valley against the published algorithm traced by hand."""

from collections import deque

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from client.learning.scores import Score
from client.learning.weight_selection import SWAD, BestWeights, Segment, WeightSelection


def _state(value: float) -> dict[str, Tensor]:
    return {"weight": torch.tensor([float(value), 2.0 * value]), "count": torch.tensor(int(value))}


def _watch(selection: WeightSelection, losses: list[float], *, every: int = 2, start: int = 0) -> None:
    """Steps whose state is their number, scored after each `every`."""
    for segment, loss in enumerate(losses, start=start):
        for step in range(segment * every + 1, (segment + 1) * every + 1):
            selection.on_step(_state(step), step)
        selection.on_evaluation(_state((segment + 1) * every), (segment + 1) * every, Score(0.5, loss))


def _published(
    losses: list[float], converge: int = 3, patience: int = 6, tolerance: float = 0.3
) -> list[int]:
    """Which segments SWAD's algorithm averages, with its two queues; a segment counts once."""
    recent: deque[int] = deque(maxlen=converge)
    smooth: deque[int] = deque(maxlen=patience)
    chosen: list[int] = []
    threshold = 0.0
    for i in range(len(losses)):
        recent.append(i)
        smooth.append(i)
        if not chosen:
            if len(recent) == converge and losses[recent[0]] == min(losses[j] for j in recent):
                chosen = [recent[0]]
                threshold = sum(losses[j] for j in recent) / converge * (1 + tolerance)
            continue
        if smooth[0] < chosen[0]:
            continue
        if min(losses[j] for j in smooth) > threshold:
            return chosen
        chosen = sorted({*chosen, smooth[0]})
    if not chosen:
        return [len(losses) - 1]
    rest = [j for j in smooth if j > chosen[-1]]
    while rest and min(losses[j] for j in rest) <= threshold:
        chosen.append(rest.pop(0))
    return chosen


@given(st.lists(st.sampled_from([0.5, 1.0, 1.2, 1.29, 1.31, 2.0, 3.0]), min_size=1, max_size=24))
def test_swad_averages_the_published_segments(losses: list[float]) -> None:
    selection = SWAD()
    _watch(selection, losses)
    segments = _published(losses)
    steps = [step for segment in segments for step in (2 * segment + 1, 2 * segment + 2)]
    kept = selection.selected()
    assert (kept.first, kept.last) == (steps[0], steps[-1])
    mean = sum(steps) / len(steps)
    assert torch.allclose(kept.state["weight"], torch.tensor([mean, 2 * mean]))


def test_a_valley_worked_out_by_hand() -> None:
    # 3 falls, 1.0 is the lowest of three (threshold 1.3 x 1.1), then six in a row above: 4th and 5th are in.
    losses = [3.0, 2.0, 1.0, 1.1, 1.2, *[2.0] * 6, 1.0]
    selection = SWAD()
    _watch(selection, losses, every=1)
    assert (selection.selected().first, selection.selected().last) == (3, 5)
    assert selection.selected().state["weight"][0] == 4.0


def test_the_valley_starts_where_the_loss_is_lowest_and_not_before() -> None:
    # The second and third segment lie below the threshold of 1.3 x 1.05 too; the released code takes them in.
    selection = SWAD()
    _watch(selection, [3.0, 1.2, 1.1, 1.0, 1.05, 1.1], every=1)
    assert (selection.selected().first, selection.selected().last) == (4, 6)
    assert selection.selected().state["weight"][0] == 5.0


def test_a_loss_that_still_falls_gives_the_last_segment() -> None:
    selection = SWAD()
    _watch(selection, [5.0, 4.0, 3.0, 2.0], every=2)
    assert (selection.selected().first, selection.selected().last) == (7, 8)


@given(st.lists(st.floats(0.5, 3.0), min_size=2, max_size=20), st.data())
def test_swad_resumes_where_it_was(losses: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(losses) - 1))
    whole, first, second = SWAD(), SWAD(), SWAD()
    _watch(whole, losses)
    _watch(first, losses[:cut])
    second.load_state_dict(first.state_dict())
    _watch(second, losses[cut:], start=cut)
    assert (whole.selected().first, whole.selected().last) == (
        second.selected().first,
        second.selected().last,
    )
    assert torch.equal(whole.selected().state["weight"], second.selected().state["weight"])


def test_memory_is_bounded() -> None:
    selection = SWAD()
    _watch(selection, [1.0] * 50)
    assert len(selection.state_dict()["undecided"]) < 6


def test_a_mean_of_means_is_weighted() -> None:
    one, other = Segment(first=1), Segment(first=4)
    for value in (1.0, 2.0, 3.0):
        one.add(_state(value))
    other.add(_state(10.0))
    one.add(other.mean, other.count)
    assert one.mean["weight"][0] == 4.0
    assert one.mean["count"] == 10


def test_the_best_state_is_copied_and_resumed() -> None:
    selection = BestWeights()
    live = _state(1)
    selection.on_evaluation(live, 1, Score(0.9, 1.0))
    live["weight"].zero_()
    selection.on_evaluation(live, 2, Score(0.8, 0.1))
    other = BestWeights()
    other.load_state_dict(selection.state_dict())
    other.on_evaluation(_state(3), 3, Score(0.9, 1.1))
    assert other.selected().last == 1
    assert other.selected().state["weight"].tolist() == [1.0, 2.0]
    other.on_evaluation(_state(4), 4, Score(0.9, 1.0))
    assert other.selected().last == 4
