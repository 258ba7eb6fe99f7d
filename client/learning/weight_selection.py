"""Which weights a run ends with: its best state, or SWAD's mean of many (Cha et al., NeurIPS 2021)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol

from torch import Tensor

from client.learning.scores import Score

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class SelectedWeights:
    """The weights that a run ends with: the mean over steps `first` to `last`, counted from 1."""

    state: State
    first: int
    last: int


class WeightSelection(Protocol):
    """Watches a run and says in the end which weights to keep. It sees hold-outs of source domains only."""

    def on_step(self, state: State, step: int) -> None:
        """An optimiser step was taken; `state` may change after the call."""

    def on_evaluation(self, state: State, step: int, score: Score) -> None:
        """The state after `step` was scored."""

    def selected(self) -> SelectedWeights:
        """The weights to keep."""

    def state_dict(self) -> dict[str, Any]:
        """Everything seen so far, as tensors and plain values."""

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""


class BestWeights:
    """Keeps the state with the highest hold-out accuracy; among equals the lowest loss, then the latest."""

    def __init__(self) -> None:
        self._best: Score | None = None
        self._kept = SelectedWeights({}, 0, 0)

    def on_step(self, state: State, step: int) -> None:
        """Nothing to do: only scored states can be kept."""

    def on_evaluation(self, state: State, step: int, score: Score) -> None:
        """Keep a copy if no earlier state is better."""
        best = self._best
        if best is None or (score.accuracy, -score.loss) >= (best.accuracy, -best.loss):
            self._best = score
            self._kept = SelectedWeights(_copy(state), step, step)

    def selected(self) -> SelectedWeights:
        """The best state; there is none before the first evaluation."""
        return self._kept

    def state_dict(self) -> dict[str, Any]:
        """The best score and state."""
        best = None if self._best is None else (self._best.accuracy, self._best.loss)
        return {"best": best, "kept": _as_dict(self._kept)}

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._best = None if checkpoint["best"] is None else Score(*checkpoint["best"])
        self._kept = SelectedWeights(**checkpoint["kept"])


class LastWeights:
    """Keeps the last state: where no image is held out, nothing tells which is best."""

    def __init__(self) -> None:
        self._kept = SelectedWeights({}, 0, 0)

    def on_step(self, state: State, step: int) -> None:
        """Hold on to the state, which goes on changing."""
        self._kept = SelectedWeights(state, step, step)

    def on_evaluation(self, state: State, step: int, score: Score) -> None:
        """Nothing to do: there are no scores."""

    def selected(self) -> SelectedWeights:
        """A copy of the last state, as long as nothing else has changed it since."""
        return SelectedWeights(_copy(self._kept.state), self._kept.first, self._kept.last)

    def state_dict(self) -> dict[str, Any]:
        """Nothing is remembered."""
        return {}

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""


@dataclass
class Segment:
    """The steps between two evaluations: the mean of their states, and the loss at their end."""

    first: int
    last: int = 0
    loss: float = 0.0
    count: int = 0
    mean: dict[str, Tensor] = field(default_factory=dict)

    def add(self, state: State, weight: int = 1) -> None:
        """Take a state, or a mean of `weight` states, into the mean; integers are taken as they last were."""
        self.count += weight
        for name, tensor in state.items():
            if name not in self.mean or not tensor.is_floating_point():
                self.mean[name] = tensor.detach().clone()
            else:
                self.mean[name].lerp_(tensor.detach(), weight / self.count)


class SWAD:
    """SWAD's choice of where to start and to stop averaging (Cha et al., algorithm 1 and appendix B.3).

    Weights are averaged over every step of whole segments, a segment being the steps between evaluations.
    The average starts with the first segment whose loss is the lowest of `converge` in a row; the mean of
    these losses, times `1 + tolerance`, is the threshold. It ends before the first of `patience` segments
    in a row that all lie above the threshold. Each segment counts once.

    Where training ends first, the last segments are left out if they all lie above the threshold, however
    few they are. So does the released code; algorithm 1 averages to the end.

    Segments whose fate is decided are folded or dropped, so at most `patience` and one are in memory.
    """

    def __init__(self, *, converge: int = 3, patience: int = 6, tolerance: float = 0.3) -> None:
        self._converge = converge
        self._patience = patience
        self._tolerance = tolerance
        self._open = Segment(first=1)
        self._undecided: list[Segment] = []
        self._total: Segment | None = None
        self._threshold = 0.0
        self._left = False  # the valley, for good

    def on_step(self, state: State, step: int) -> None:
        """Average the step into its segment."""
        if self._open.count == 0:
            self._open.first = step
        self._open.add(state)

    def on_evaluation(self, state: State, step: int, score: Score) -> None:  # noqa: ARG002 - it has been averaged
        """Close the segment, and decide what can be decided."""
        self._open.last, self._open.loss = step, score.loss
        if not self._left:
            self._undecided.append(self._open)
            if self._total is None:
                self._look_for_the_start()
            else:
                self._fold(until=self._patience - 1)
        self._open = Segment(first=step + 1)

    def selected(self) -> SelectedWeights:
        """The average over the valley; the last segment alone where the loss has not converged."""
        if self._total is not None:
            self._fold(until=0)
        chosen = self._total or self._undecided[-1]
        return SelectedWeights(chosen.mean, chosen.first, chosen.last)

    def state_dict(self) -> dict[str, Any]:
        """All but the open segment, which is empty where checkpoints are made: right after an evaluation."""
        return {
            "undecided": [dict(vars(segment)) for segment in self._undecided],
            "total": None if self._total is None else dict(vars(self._total)),
            "threshold": self._threshold,
            "left": self._left,
        }

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._undecided = [Segment(**segment) for segment in checkpoint["undecided"]]
        self._total = None if checkpoint["total"] is None else Segment(**checkpoint["total"])
        self._threshold = checkpoint["threshold"]
        self._left = checkpoint["left"]

    def _look_for_the_start(self) -> None:
        self._undecided = self._undecided[-self._converge :]
        losses = [segment.loss for segment in self._undecided]
        if len(losses) == self._converge and losses[0] == min(losses):
            self._threshold = fmean(losses) * (1 + self._tolerance)
            self._total = self._undecided.pop(0)

    def _fold(self, *, until: int) -> None:
        """Add the first undecided segments to the average, until so many are left or the valley is."""
        assert self._total is not None
        while len(self._undecided) > until and not self._left:
            if min(segment.loss for segment in self._undecided) > self._threshold:
                self._undecided, self._left = [], True
            else:
                segment = self._undecided.pop(0)
                self._total.add(segment.mean, segment.count)
                self._total.last = segment.last


WEIGHT_SELECTIONS: dict[str, Callable[[], WeightSelection]] = {"best": BestWeights, "swad": SWAD}


class SelectionGroup:
    """Several selections, by name, that watch one run; the first of them decides what it ends with.

    Without hold-outs each of them keeps the last state.
    """

    def __init__(self, names: Sequence[str], *, has_holdouts: bool = True) -> None:
        self._selections: dict[str, WeightSelection] = {
            name: WEIGHT_SELECTIONS[name]() if has_holdouts else LastWeights() for name in names
        }

    def on_step(self, state: State, step: int) -> None:
        """Tell all of them."""
        for selection in self._selections.values():
            selection.on_step(state, step)

    def on_evaluation(self, state: State, step: int, score: Score) -> None:
        """Tell all of them."""
        for selection in self._selections.values():
            selection.on_evaluation(state, step, score)

    def selected(self) -> SelectedWeights:
        """The weights that the first of them keeps."""
        return next(iter(self._selections.values())).selected()

    def selected_by_name(self) -> dict[str, SelectedWeights]:
        """The weights that each of them would keep."""
        return {name: selection.selected() for name, selection in self._selections.items()}

    def state_dict(self) -> dict[str, Any]:
        """Those of all of them."""
        return {name: selection.state_dict() for name, selection in self._selections.items()}

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same selections."""
        for name, selection in self._selections.items():
            selection.load_state_dict(checkpoint[name])


def _copy(state: State) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _as_dict(kept: SelectedWeights) -> dict[str, Any]:
    return {"state": dict(kept.state), "first": kept.first, "last": kept.last}
