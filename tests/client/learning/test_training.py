"""The loop: schedule, batches, selection, resumption, and that frozen means frozen."""

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from client.learning.methods.vl2v import cosine_loss
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.recipe import Recipe
from client.learning.scores import Score, score
from client.learning.training import Checkpoint, Schedule, Training, TrainingStep
from client.learning.training_set import DomainBatches, step_seed
from client.learning.weight_selection import SWAD, BestWeights, SelectionGroup, WeightSelection

SCHEDULE = Schedule(steps=20, learning_rate=0.05, evaluations=4, cosine=True, warmup=0.1)


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3), nn.Dropout(0.2))


def _batch_at(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step_seed(7, step))
    inputs = torch.randn(16, 4, generator=generator)
    return inputs, nn.functional.normalize(inputs[:, :3], dim=1)


def _training(module: nn.Module, **changes: Any) -> Training:
    parts: dict[str, Any] = {
        "parameters": list(module.parameters()),
        "batch_at": _batch_at,
        "loss_of": cosine_loss,
        "schedule": SCHEDULE,
    }
    return Training(module, **{**parts, **changes})


def _evaluate(module: nn.Module) -> Callable[[], Score]:
    def evaluate() -> Score:
        module.eval()
        with torch.no_grad():
            inputs, targets = _batch_at(-1)
            loss = cosine_loss(module(inputs), targets).item()
        return Score(round(-loss, 1), loss)

    return evaluate


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    rates = [SCHEDULE.rate(step) for step in range(1, 21)]
    assert rates[:3] == [0.025, 0.05, 0.05]
    assert all(a >= b for a, b in pairwise(rates[1:]))
    assert rates[-1] < 0.001


@pytest.mark.parametrize(("steps", "evaluations"), [(20, 4), (7, 3), (3, 10), (19, 10), (601, 10), (1, 1)])
def test_evaluations_are_spread_and_end_with_the_last_step(steps: int, evaluations: int) -> None:
    schedule = Schedule(steps, 0.1, evaluations, cosine=False)
    after = [step for step in range(1, steps + 1) if schedule.evaluates_after(step)]
    assert after[-1] == steps
    assert len(after) == min(steps, evaluations)
    assert all(abs(later - earlier - steps / len(after)) < 1 for earlier, later in pairwise([0, *after]))


@pytest.mark.parametrize("select", [BestWeights, SWAD, lambda: SelectionGroup(["swad", "best"])])
def test_a_resumed_run_ends_in_the_same_weights(select: Callable[[], WeightSelection]) -> None:
    unbroken = _module()
    _training(unbroken, evaluate=_evaluate(unbroken), selection=select()).run()

    saved: list[Checkpoint] = []
    broken = _module()

    def interrupt(progress: TrainingStep) -> None:
        if progress.step == 12:
            raise KeyboardInterrupt

    def keep(checkpoint: Checkpoint) -> None:
        saved.append(_copied(checkpoint))

    with pytest.raises(KeyboardInterrupt):
        _training(broken, evaluate=_evaluate(broken), selection=select()).run(save=keep, on_step=interrupt)
    assert saved[-1]["step"] == 10
    resumed = _module()
    _training(resumed, evaluate=_evaluate(resumed), selection=select()).run(resume=saved[-1])
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_step_is_told_before_it_is_saved() -> None:
    """Who is killed in between takes it again. Otherwise nobody would ever be told of it."""
    told: list[int] = []
    saved: list[int] = []

    def keep(checkpoint: Checkpoint) -> None:
        saved.append(checkpoint["step"])
        assert told[-1] == checkpoint["step"]

    def refuse(progress: TrainingStep) -> None:
        told.append(progress.step)
        if progress.step == 10:
            raise KeyboardInterrupt

    module = _module()
    with pytest.raises(KeyboardInterrupt):
        _training(module).run(save=keep, on_step=refuse)
    assert saved == [5]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


@pytest.mark.parametrize(("threads", "beside"), [(1, True), (2, False)])
def test_batches_are_prepared_beside_a_lone_thread_and_by_a_whole_team(
    threads: int, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either way each is asked for once, in order, and they make the same weights."""
    asked: list[tuple[int, bool]] = []

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        asked.append((step, threading.current_thread() is not threading.main_thread()))
        return _batch_at(step)

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    module, usual = _module(), _module()
    _training(module, batch_at=batch_at).run()
    assert asked == [(step, beside) for step in range(SCHEDULE.steps)]
    monkeypatch.undo()
    _training(usual).run()
    for name, tensor in usual.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name]), name


class _Noise(nn.Module):
    """Draws a number for each row, as dropout would."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.drawn: list[float] = []

    def forward(self, inputs: Tensor) -> Tensor:
        noise = torch.rand(len(inputs), 1)
        self.drawn = noise.flatten().tolist()
        return noise * self.weight


def _drawn_last(processes: Processes) -> list[float]:
    module = _Noise()
    _training(module, seed=3, processes=processes).run()
    return module.drawn


def test_each_process_draws_other_numbers_for_its_rows() -> None:
    second = Processes()
    second.index = 1
    alone, other = _drawn_last(SINGLE_PROCESS), _drawn_last(second)
    assert not set(alone) & set(other)
    assert _drawn_last(second) == other
    torch.manual_seed(step_seed(3, SCHEDULE.steps))
    assert torch.rand(16).tolist() == alone


def test_what_is_not_trained_stays_bit_equal() -> None:
    module = _module()
    before = _copied(module.state_dict())
    _training(module, parameters=list(module[2].parameters())).run()  # type: ignore[index]
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if not name.startswith("1.")} == {"2.weight", "2.bias"}


def test_the_best_state_is_kept() -> None:
    module = _module()
    scores = iter([Score(0.5, 1.0), Score(0.9, 1.0), Score(0.9, 2.0), Score(0.2, 0.1)])
    states: list[dict[str, Tensor]] = []

    def evaluate() -> Score:
        states.append(_copied(module.state_dict()))
        return next(scores)

    _training(module, evaluate=evaluate, selection=BestWeights()).run()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in module.named_parameters())
    assert not module.training


@given(st.integers(0, 10_000))
def test_a_score_is_the_mean_over_domains(seed: int) -> None:
    rng = np.random.default_rng(seed)
    domains = np.repeat([0, 1, 3], rng.integers(1, 9, 3))
    logits, labels = rng.normal(size=(len(domains), 4)), rng.integers(0, 4, len(domains))
    accuracies, losses = [], []
    for domain in (0, 1, 3):
        rows = np.flatnonzero(domains == domain)
        exponentials = np.exp(logits[rows])
        shares = exponentials / exponentials.sum(axis=1, keepdims=True)
        accuracies.append(np.mean(logits[rows].argmax(axis=1) == labels[rows]))
        losses.append(np.mean(-np.log(shares[np.arange(len(rows)), labels[rows]])))
    found = score(torch.tensor(logits), torch.tensor(labels), torch.tensor(domains))
    assert found.accuracy == pytest.approx(np.mean(accuracies))
    assert found.loss == pytest.approx(np.mean(losses))


def test_a_score_is_the_same_of_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, cross_entropy, held = torch.Generator().manual_seed(0), functional.cross_entropy, list[int]()
    logits = 20 * torch.randn(500, 30, generator=generator)
    labels, domains = (torch.randint(n, (500,), generator=generator) for n in (30, 3))
    whole = score(logits, labels, domains)

    def noted(exact: Tensor, labels: Tensor, *, reduction: str) -> Tensor:
        held.append(exact.numel())
        return cross_entropy(exact, labels, reduction=reduction)

    monkeypatch.setattr(functional, "cross_entropy", noted)
    monkeypatch.setattr("client.learning.scores._SCORES_AT_ONCE", 700)
    assert score(logits, labels, domains) == whole
    assert max(held) <= 700


def test_every_domain_gives_its_share_of_a_batch() -> None:
    domains = torch.tensor([0] * 50 + [1] * 3 + [2] * 10)
    draw = DomainBatches(domains, per_domain=8, seed=1, unlabelled=Recipe().unlabelled_in_batch)
    for step in range(5):
        assert domains[draw(step)].bincount().tolist() == [8, 8, 8]
    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_unlabelled_images_are_a_third_of_a_batch_however_many_they_are() -> None:
    share = Recipe().unlabelled_in_batch
    labelled = torch.tensor([0] * 50 + [1] * 3)
    for number in (1, 500):
        domains = torch.cat([labelled, torch.full((number,), -1)])
        draw = DomainBatches(domains, per_domain=8, seed=1, unlabelled=share)
        drawn = domains[draw(2)]
        assert [(drawn == domain).sum().item() for domain in (0, 1, -1)] == [8, 8, 8]
        alone = DomainBatches(labelled, per_domain=8, seed=1, unlabelled=share)
        assert torch.equal(draw(2)[:16], alone(2))  # the labelled images are those of a run without
    only = DomainBatches(torch.full((30,), -1), per_domain=8, seed=1, unlabelled=share)
    assert len(only(0)) == 8


def test_each_unlabelled_image_is_seen_before_any_is_seen_again() -> None:
    domains = torch.cat([torch.zeros(5, dtype=torch.long), torch.full((30,), -1)])

    def draws() -> DomainBatches:
        return DomainBatches(domains, per_domain=8, seed=1, unlabelled=lambda _, __: 4)

    draw = draws()
    unlabelled = torch.cat([draw(step)[8:] for step in range(45)])
    passes = unlabelled.view(6, 30)
    assert all(one.sort().values.tolist() == list(range(5, 35)) for one in passes)
    assert len({tuple(one.tolist()) for one in passes}) == 6
    assert torch.equal(draws()(37), draw(37))  # where a resumed run begins


class _Small(nn.Module):
    """A module that has memory for so many rows at once."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.rows, self.seen = rows, list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.rows:
            raise torch.OutOfMemoryError
        self.seen.append(len(inputs))
        return cast(Tensor, self.inner(inputs))


def _relations(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that compares the images of a batch with each other: it is no mean over parts."""
    apart = (functional.pdist(outputs) - functional.pdist(targets)).square().mean()
    return apart + cosine_loss(outputs, targets)


def test_a_batch_that_memory_does_not_hold_goes_in_parts_and_teaches_the_same() -> None:
    trained = []
    for rows in (16, 5):
        module = _Small(rows)
        _training(module, loss_of=_relations).run()
        trained.append(module)
    assert set(trained[0].seen) == {16}
    assert set(trained[1].seen) == {4}  # 16 and 8 were too many; and it is remembered
    for whole, parts in zip(trained[0].parameters(), trained[1].parameters(), strict=True):
        torch.testing.assert_close(whole, parts, atol=2e-5, rtol=1e-4)


def test_an_image_that_memory_does_not_hold_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        _training(_Small(0)).run()


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_and_loss_in_float32() -> None:
    module, seen = _module(), []
    next(module.children()).register_forward_hook(lambda _, __, outputs: seen.append(outputs.dtype))

    def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
        assert outputs.dtype == torch.float32
        return cosine_loss(outputs, targets)

    _training(module, loss_of=loss_of, mixed_precision=True).run()
    assert set(seen) == {torch.bfloat16}
    assert {each.dtype for each in module.parameters()} == {torch.float32}
    losses = []
    for mixed in (True, False):
        _training(_module(), mixed_precision=mixed).run(on_step=lambda step: losses.append(float(step.loss)))
    mixed_losses, exact_losses = losses[:20], losses[20:]
    assert mixed_losses != exact_losses
    assert mixed_losses == pytest.approx(exact_losses, abs=0.02)
