"""The only training loop."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from client.learning.methods import Loss
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.scores import Score
from client.learning.training_set import step_seed
from client.learning.weight_selection import LastWeights, WeightSelection

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


@dataclass(frozen=True)
class Training:
    """The parameters that train, and their inputs.

    Attributes:
        module: maps a batch's inputs to outputs.
        parameters: those of it that train; everything else stays as it is.
        batch_at: inputs and targets of a batch, counted from 0; the same whenever it is asked. It may be
            asked from another thread, for the next batch while the module is busy with the one before.
        loss_of: of outputs and targets.
        schedule: how many steps, and at which rates.
        seed: of what the module itself draws, as dropout does; a step's draws follow from it, the step and
            the process, each of which draws others.
        evaluate: scores the module on held-out images; `None` where there are none.
        selection: decides by the scores which weights the module has in the end. It is shown what trains,
            for the rest never changes.
        processes: those that train it together; a batch is then this process's share of it.
    """

    module: nn.Module
    parameters: Sequence[nn.Parameter]
    batch_at: Callable[[int], Batch]
    loss_of: Loss
    schedule: Schedule
    seed: int = 0
    evaluate: Callable[[], Score] | None = None
    selection: WeightSelection = field(default_factory=LastWeights)
    processes: Processes = SINGLE_PROCESS

    def run(
        self,
        *,
        resume: Checkpoint | None = None,
        save: Callable[[Checkpoint], None] = lambda _: None,
        on_step: Callable[[TrainingStep], None] = lambda _: None,
    ) -> None:
        """Train the module in place.

        Args:
            resume: what `save` was given by an earlier, interrupted run of the same.
            save: called after every evaluation but the last, and as often where nothing is evaluated.
            on_step: called after every step, before `save`: a run that is stopped in between takes the step
                again.
        """
        module, schedule, processes = self.module, self.schedule, self.processes
        module.requires_grad_(False)
        trained = [parameter.requires_grad_(True) for parameter in self.parameters]
        changing = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
        optimiser = torch.optim.Adam(trained, lr=schedule.learning_rate, fused=True)
        done = 0 if resume is None else self._restore(resume, optimiser)
        network = processes.wrap(module).train()
        for step, (inputs, targets) in self._batches(done + 1, trained[0].device):
            optimiser.param_groups[0]["lr"] = schedule.rate(step)
            torch.manual_seed(step_seed(self.seed - processes.index, step))  # batches and views count upwards
            loss = self.loss_of(processes.all_gather(network(inputs)), processes.all_gather(targets))
            optimiser.zero_grad(set_to_none=True)
            processes.backward(loss)
            optimiser.step()

            self.selection.on_step(changing, step)
            score = self._score(step)
            network.train()
            if score is not None:
                self.selection.on_evaluation(changing, step, score)
            on_step(TrainingStep(step, loss.detach(), score))
            if schedule.evaluates_after(step) and step < schedule.steps:
                save(self._checkpoint(step, optimiser))
        module.load_state_dict(self.selection.selected().state, strict=False)
        module.eval()

    def _score(self, step: int) -> Score | None:
        if self.evaluate is None or not self.schedule.evaluates_after(step):
            return None
        return self.evaluate()

    def _checkpoint(self, step: int, optimiser: torch.optim.Optimizer) -> Checkpoint:
        return {
            "step": step,
            "module": self.module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "selection": self.selection.state_dict(),
        }

    def _restore(self, checkpoint: Checkpoint, optimiser: torch.optim.Optimizer) -> int:
        """Go on from a checkpoint; returns how many steps were taken before it."""
        self.module.load_state_dict(checkpoint["module"])
        optimiser.load_state_dict(checkpoint["optimiser"])
        self.selection.load_state_dict(checkpoint["selection"])
        return int(checkpoint["step"])

    def _batches(self, first: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
        """Each step, counted from 1, and its batch.

        The next batch is prepared beside the step if that holds nothing up: on a GPU, or where one thread
        trains alone. Threads that share a step all wait for the last of them.
        """
        steps = range(first, self.schedule.steps + 1)
        if device.type == "cpu" and torch.get_num_threads() > 1:
            yield from ((step, self.batch_at(step - 1)) for step in steps)
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.batch_at, first - 1)
            for step in steps:
                batch = coming.result()
                if step < self.schedule.steps:
                    coming = pool.submit(self.batch_at, step)
                yield step, batch
