"""The only training loop, and the batches and validation that it is given."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.learning.averaging import Score, WeightSelection
from client.learning.data_parallel import by_halves
from client.learning.methods import Loss
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.student import StudentNetwork
from client.learning.temperature import in_double

Batch = tuple[Tensor, Tensor]
Checkpoint = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """Steps, counted from 1; the learning rate of each; after which of them the model is evaluated and saved.

    The rate is constant, or with `cosine` warmed up over a share `warmup` of the steps and then led to zero.
    """

    steps: int
    learning_rate: float
    evaluations: int
    cosine: bool
    warmup: float = 0.0

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if not self.cosine:
            return self.learning_rate
        warm = max(1, round(self.warmup * self.steps))
        if step <= warm:
            return self.learning_rate * step / warm
        done = (step - 1 - warm) / max(1, self.steps - warm)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def evaluates_after(self, step: int) -> bool:
        """Whether the model is evaluated after this step: evenly spread, and always after the last."""
        return step * self.evaluations // self.steps > (step - 1) * self.evaluations // self.steps


@dataclass(frozen=True)
class TrainingStep:
    """One step: counted from 1, its training loss, and the score if the model was evaluated after it.

    The loss is where the model is: taking its value waits for the device.
    """

    step: int
    loss: Tensor
    score: Score | None


class DomainBatches:
    """The examples of a step, fixed by seed and step.

    From each domain come `per_domain`, drawn with replacement; from the images of no domain (-1), which have
    no label, as many as `unlabelled` says of `per_domain` and the number of domains. These come in turn, each
    before any comes again, in an order that is drawn anew for every pass.
    """

    def __init__(
        self, domains: Tensor, *, per_domain: int, seed: int, unlabelled: Callable[[int, int], int]
    ) -> None:
        names = sorted(set(domains[domains >= 0].tolist()))
        self._members = [torch.nonzero(domains == domain).flatten() for domain in names]
        self._per_domain = per_domain
        self._pool = torch.nonzero(domains < 0).flatten()
        self._of_pool = unlabelled(per_domain, len(names)) if len(self._pool) else 0
        self._seed = seed
        self._order: tuple[int, Tensor] = (-1, self._pool)

    def __call__(self, step: int) -> Tensor:
        """Positions, shape (domains x per_domain + unlabelled,)."""
        generator = torch.Generator().manual_seed(step_seed(self._seed, step))
        parts = [
            members[torch.randint(len(members), (self._per_domain,), generator=generator)]
            for members in self._members
        ]
        places = range(step * self._of_pool, (step + 1) * self._of_pool)
        return torch.cat([*parts, self._pool[[self._in_turn(place) for place in places]]])

    def _in_turn(self, place: int) -> int:
        """Which of the unlabelled images is the one at this place, counted over all steps."""
        made, at = divmod(place, len(self._pool))
        if self._order[0] != made:
            generator = torch.Generator().manual_seed(step_seed(self._seed + 4, made))
            self._order = made, torch.randperm(len(self._pool), generator=generator)
        return int(self._order[1][at])


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, so that a resumed run draws what an unbroken one would have drawn."""
    return (seed * 1_000_003 + step) % 2**63


def _seed(device: torch.device, seed: int) -> None:
    """Seed what a module draws from there.

    Until a GPU is used, `torch.manual_seed` keeps the seed for then, and with it the stack of whoever called
    it, in words: that takes half a millisecond of each step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def train(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    batch_at: Callable[[int], Batch],
    loss_of: Loss,
    schedule: Schedule,
    *,
    seed: int = 0,
    evaluate: Callable[[], Score] | None = None,
    selection: WeightSelection | None = None,
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] = lambda _: None,
    on_step: Callable[[TrainingStep], None] = lambda _: None,
    processes: Processes = SINGLE_PROCESS,
) -> None:
    """Train `parameters` of `module` in place.

    Args:
        module: maps a batch's inputs to outputs; everything that is not in `parameters` stays as it is.
        batch_at: inputs and targets of a batch, counted from 0; the same whenever it is asked. It may be
            asked from another thread, for the next batch while the module is busy with the one before.
        seed: of what the module itself draws, as dropout does; a step's draws follow from it, the step and
            the process, each of which draws others.
        evaluate: scores the module on held-out images.
        selection: decides by the scores which weights the module has in the end; without it, the last. It
            is shown what trains, for the rest never changes.
        resume: what `save` was given by an earlier, interrupted call with the same arguments.
        save: called after every evaluation but the last, and as often where nothing is evaluated.
        on_step: called after every step, before `save`: who is stopped in between takes the step again.
        processes: those that train it together; a batch is then this process's share of it.
    """
    module.requires_grad_(False)
    trained = [parameter.requires_grad_(True) for parameter in parameters]
    optimiser = torch.optim.Adam(trained, lr=schedule.learning_rate, fused=True)
    changing = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    start = 0
    if resume is not None:
        start = resume["step"]
        module.load_state_dict(resume["module"])
        optimiser.load_state_dict(resume["optimiser"])
        if selection is not None:
            selection.load_state_dict(resume["selection"])

    network = processes.wrap(module)
    batches = _ahead if _processor_to_spare(trained[0].device) else _in_turn
    network.train()
    for step, (inputs, targets) in batches(batch_at, start + 1, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        # Downwards: batches and views have the seeds above.
        _seed(trained[0].device, step_seed(seed - processes.index, step))
        loss = loss_of(processes.all_gather(network(inputs)), processes.all_gather(targets))
        optimiser.zero_grad(set_to_none=True)
        processes.backward(loss)
        optimiser.step()

        score = None
        if selection is not None:
            selection.on_step(changing, step)
        if schedule.evaluates_after(step):
            if evaluate is not None:
                score = evaluate()
                network.train()
            if selection is not None and score is not None:
                selection.on_evaluation(changing, step, score)
        on_step(TrainingStep(step, loss.detach(), score))
        if schedule.evaluates_after(step) and step < schedule.steps:
            save(
                {
                    "step": step,
                    "module": module.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "selection": None if selection is None else selection.state_dict(),
                }
            )

    if selection is not None:
        module.load_state_dict(selection.selected().state, strict=False)
    module.eval()


def _processor_to_spare(device: torch.device) -> bool:
    """Whether a batch can be prepared beside a step without holding it up.

    Several threads that share a step all wait for the last of them: what another thread takes from one of
    their processors, each of them loses.
    """
    return device.type != "cpu" or torch.get_num_threads() == 1


def _in_turn(batch_at: Callable[[int], Batch], first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """Each step, counted from 1, and its batch, prepared with all threads before the step is taken."""
    return ((step, batch_at(step - 1)) for step in range(first, last + 1))


def _ahead(batch_at: Callable[[int], Batch], first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """Each step, counted from 1, and its batch; the next one is prepared while the step is taken."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batch_at, first - 1)
        for step in range(first, last + 1):
            batch = coming.result()
            if step < last:
                coming = pool.submit(batch_at, step)
            yield step, batch


@torch.inference_mode()
def predict(student: StudentNetwork, batches: Iterator[Tensor]) -> Tensor:
    """Class scores, shape (n, classes), of batches of uint8 pixels, in order."""
    student.eval()
    return torch.cat([student.logits(by_halves(student, pixels, module=student)).cpu() for pixels in batches])


def score(logits: Tensor, labels: Tensor, domains: Tensor) -> Score:
    """How class scores do, each domain counting alike, however many images it has (DomainBed's evaluator).

    Args:
        logits: class scores, shape (n, classes).
        labels: class of each image, shape (n,), int64.
        domains: domain of each image, shape (n,), int64.
    """
    pieces = [
        (exact.argmax(dim=1) == of_these, functional.cross_entropy(exact, of_these, reduction="none"))
        for exact, of_these in in_double(logits, labels)
    ]
    right, losses = torch.cat([each for each, _ in pieces]).double(), torch.cat([each for _, each in pieces])
    members = [domains == domain for domain in sorted(set(domains.tolist()))]
    return Score(
        accuracy=fmean(right[rows].mean().item() for rows in members),
        loss=fmean(losses[rows].mean().item() for rows in members),
    )
