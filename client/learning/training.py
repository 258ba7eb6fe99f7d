"""The only training loop, and the batches and validation that it is given."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.learning.methods import Loss
from client.learning.student import Student

Batch = tuple[Tensor, Tensor]
Checkpoint = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `learning_rate`, then a cosine to zero; evaluated and saved `evaluations` times."""

    steps: int
    learning_rate: float
    warmup: float
    evaluations: int

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def evaluates_after(self, step: int) -> bool:
        """Whether the model is evaluated after this step: evenly spread, and always after the last."""
        every = max(1, self.steps // self.evaluations)
        left = self.steps - step - 1
        return left == 0 or (left >= every and (step + 1) % every == 0)


@dataclass(frozen=True)
class Score:
    """How a model does on held-out images; `better_than` decides which checkpoint is kept."""

    accuracy: float
    loss: float

    def better_than(self, other: "Score | None") -> bool:
        """Higher accuracy, or equal accuracy and no higher loss."""
        return other is None or (self.accuracy, -self.loss) >= (other.accuracy, -other.loss)


@dataclass(frozen=True)
class Progress:
    """One step: counted from 1, its training loss, and the score if the model was evaluated after it."""

    step: int
    loss: float
    score: Score | None


class DomainBatches:
    """The examples of a step: `per_domain` from each domain, with replacement; fixed by seed and step."""

    def __init__(self, domains: Tensor, *, per_domain: int, seed: int) -> None:
        self._members = [
            torch.nonzero(domains == domain).flatten() for domain in sorted(set(domains.tolist()))
        ]
        self._per_domain = per_domain
        self._seed = seed

    def __call__(self, step: int) -> Tensor:
        """Positions, shape (domains x per_domain,)."""
        generator = torch.Generator().manual_seed(step_seed(self._seed, step))
        draws = [torch.randint(len(m), (self._per_domain,), generator=generator) for m in self._members]
        return torch.cat([members[draw] for members, draw in zip(self._members, draws, strict=True)])


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, so that a resumed run draws what an unbroken one would have drawn."""
    return (seed * 1_000_003 + step) % 2**63


def train(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    batch_at: Callable[[int], Batch],
    loss_of: Loss,
    schedule: Schedule,
    *,
    evaluate: Callable[[], Score] | None = None,
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] = lambda _: None,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Train `parameters` of `module` in place.

    Args:
        module: maps a batch's inputs to outputs; everything that is not in `parameters` stays as it is.
        batch_at: inputs and targets of a step, the same whenever it is asked.
        evaluate: scores the module on held-out images. The best state is what the module has in the end;
            without it, the last.
        resume: what `save` was given by an earlier, interrupted call with the same arguments.
        save: called after every evaluation but the last.
        on_step: called after every step.
    """
    module.requires_grad_(False)
    trained = [parameter.requires_grad_(True) for parameter in parameters]
    optimiser = torch.optim.Adam(trained, lr=schedule.learning_rate)
    best: Score | None = None
    best_state: Mapping[str, Tensor] = {}
    start = 0
    if resume is not None:
        module.load_state_dict(resume["module"])
        optimiser.load_state_dict(resume["optimiser"])
        start, best, best_state = resume["step"], Score(*resume["best"]), resume["best_state"]

    for step in range(start, schedule.steps):
        module.train()
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        inputs, targets = batch_at(step)
        loss = loss_of(module(inputs), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

        score = None
        if evaluate is not None and schedule.evaluates_after(step):
            score = evaluate()
            if score.better_than(best):
                best, best_state = score, {k: v.clone() for k, v in module.state_dict().items()}
            assert best is not None
            if step + 1 < schedule.steps:
                save(
                    {
                        "step": step + 1,
                        "module": module.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "best": (best.accuracy, best.loss),
                        "best_state": best_state,
                    }
                )
        on_step(Progress(step + 1, loss.item(), score))

    if best_state:
        module.load_state_dict(best_state)
    module.eval()


@torch.inference_mode()
def predict(student: Student, batches: Iterator[Tensor]) -> Tensor:
    """Class scores, shape (n, classes), of batches of uint8 pixels, in order."""
    student.eval()
    return torch.cat([student.logits(student(pixels)).cpu() for pixels in batches])


def score(logits: Tensor, labels: Tensor) -> Score:
    """Accuracy (share of 1) and cross-entropy of class scores (n, classes) against labels (n,)."""
    correct = (logits.argmax(dim=1) == labels).float().mean().item()
    return Score(correct, functional.cross_entropy(logits, labels).item())
