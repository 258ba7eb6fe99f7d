"""The only training loop."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from client.learning.methods import Loss
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.scores import Score
from client.learning.supervision import Rows, each_of
from client.learning.training_set import step_seed
from client.learning.weight_selection import LastWeights, State, WeightSelection

Batch = tuple[Tensor, Rows]
Checkpoint = dict[str, Any]
Tensors = tuple[Tensor, ...] | list[Tensor]


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
        batch_at: inputs and targets of a batch, counted from 0; the same whenever it is asked. Inputs of
            several views stand one view behind the other.
        loss_of: of outputs and targets; of several views, outputs have shape (views, n, d).
        schedule: how many steps, and at which rates.
        seed: of what the module itself draws, as dropout does; a step's draws follow from it, the step and
            the process, each of which draws others.
        evaluate: scores the module on held-out images; `None` where there are none.
        selection: decides by the scores which weights the module has in the end. It is shown what trains,
            for the rest never changes.
        processes: those that train it together; a batch is then this process's share of it.
        views: how many views of each image are in a batch.
        average: a moving mean of the module's weights. If there is one, its weights are selected from.
        average_teaches: whether the loss is given what the mean gives for the inputs, behind the targets.
        prepares_ahead: whether `batch_at` may be asked from another thread, for the next batch while the
            module is busy with the one before.
        mixed_precision: whether the module computes in bfloat16 where that suffices; loss and weights stay
            in float32.
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
    views: int = 1
    average: AveragedModel | None = None
    average_teaches: bool = False
    prepares_ahead: bool = True
    mixed_precision: bool = False

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
        changing = self._changing()
        optimiser = torch.optim.Adam(trained, lr=schedule.learning_rate, fused=True)
        done = 0 if resume is None else self._restore(resume, optimiser)
        network, parts = processes.wrap(module).train(), 1
        for step, (inputs, targets) in self._batches(done + 1, trained[0].device):
            optimiser.param_groups[0]["lr"] = schedule.rate(step)
            loss, parts = self._backward(network, inputs, targets, step, parts)
            optimiser.step()
            if self.average is not None:
                self.average.update_parameters(module)

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

    def _backward(
        self, network: nn.Module, inputs: Tensor, targets: Rows, step: int, parts: int
    ) -> tuple[Tensor, int]:
        """Compute the gradients of a step; returns its loss, and in how many parts the batch went through.

        A batch that memory does not hold is taken in twice as many parts, from then on.
        """
        while True:
            self.module.zero_grad(set_to_none=True)
            try:
                if parts == 1:
                    return self._backward_at_once(network, inputs, targets, step), 1
                return self._backward_in_parts(network, inputs, targets, step, parts), parts
            except torch.OutOfMemoryError:
                # Several processes would have to agree on it.
                if 2 * parts > len(inputs) or self.processes is not SINGLE_PROCESS:
                    raise
            parts *= 2
            torch.cuda.empty_cache()

    def _backward_at_once(self, network: nn.Module, inputs: Tensor, targets: Rows, step: int) -> Tensor:
        outputs = self._gathered(self._outputs(network, inputs, step))
        loss = self.loss_of(outputs, self._compared_with([inputs], targets))
        self.processes.backward(loss)
        return loss

    def _backward_in_parts(
        self, network: nn.Module, inputs: Tensor, targets: Rows, step: int, parts: int
    ) -> Tensor:
        """The same gradients, also of a loss that compares images with each other.

        All outputs come first, without gradients, then the loss and its gradient by the outputs, and then
        each part again (gradient caching: Gao et al., RepL4NLP 2021). A module that draws, as dropout does,
        draws otherwise than for the whole batch, but the same both times.
        """
        chunks = inputs.chunk(parts)
        with torch.no_grad():
            found = [self._outputs(network, chunk, step, part) for part, chunk in enumerate(chunks)]
        outputs = torch.cat(found).requires_grad_()
        loss = self.loss_of(self._gathered(outputs), self._compared_with(chunks, targets))
        (slopes,), sizes = torch.autograd.grad(loss, outputs), [len(chunk) for chunk in chunks]
        for part, (chunk, slope) in enumerate(zip(chunks, slopes.split_with_sizes(sizes), strict=True)):
            self._outputs(network, chunk, step, part).backward(slope)  # type: ignore[no-untyped-call]
        return loss

    def _outputs(self, network: nn.Module, inputs: Tensor, step: int, part: int = 0) -> Tensor:
        # Batches and views count upwards, so processes and parts count downwards.
        torch.manual_seed(step_seed(self.seed - self.processes.index - part, step))
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.mixed_precision):
            outputs: Tensor = network(inputs)
        return outputs.float() if self.mixed_precision else outputs

    def _changing(self) -> State:
        """The weights that change with each step and are selected from, by name."""
        kept: nn.Module = self.module if self.average is None else self.average.module
        trained = {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        return {name: p.detach() for name, p in kept.named_parameters() if name in trained}

    def _gathered(self, outputs: Tensor) -> Tensor:
        """The outputs of the whole batch, (n, d), or (views, n, d) of several views."""
        if self.views == 1:
            return self.processes.all_gather(outputs)
        by_image = outputs.view(self.views, -1, *outputs.shape[1:]).transpose(0, 1)
        return self.processes.all_gather(by_image).transpose(0, 1)

    def _compared_with(self, chunks: Sequence[Tensor], targets: Rows) -> Rows:
        """The targets of the whole batch, and behind them what the mean gives, if it teaches."""
        gathered = each_of(targets, self.processes.all_gather)
        if self.average is None or not self.average_teaches:
            return gathered
        with torch.no_grad():
            answers = self._gathered(torch.cat([self.average.module(chunk) for chunk in chunks]))
        return (*((gathered,) if isinstance(gathered, Tensor) else gathered), answers)

    def _score(self, step: int) -> Score | None:
        if self.evaluate is None or not self.schedule.evaluates_after(step):
            return None
        return self.evaluate()

    def _checkpoint(self, step: int, optimiser: torch.optim.Optimizer) -> Checkpoint:
        average = {} if self.average is None else {"average": self.average.state_dict()}
        return {
            "step": step,
            "module": self.module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "selection": self.selection.state_dict(),
            **average,
        }

    def _restore(self, checkpoint: Checkpoint, optimiser: torch.optim.Optimizer) -> int:
        """Go on from a checkpoint; returns how many steps were taken before it."""
        self.module.load_state_dict(checkpoint["module"])
        if self.average is not None:
            self.average.load_state_dict(checkpoint["average"])
        optimiser.load_state_dict(checkpoint["optimiser"])
        self.selection.load_state_dict(checkpoint["selection"])
        return int(checkpoint["step"])

    def _batches(self, first: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
        """Each step, counted from 1, and its batch.

        The next batch is prepared beside the step if that holds nothing up: on a GPU, or where one thread
        trains alone. Threads that share a step all wait for the last of them.
        """
        steps = range(first, self.schedule.steps + 1)
        if not self.prepares_ahead or (device.type == "cpu" and torch.get_num_threads() > 1):
            yield from ((step, self.batch_at(step - 1)) for step in steps)
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.batch_at, first - 1)
            for step in steps:
                batch = coming.result()
                if step < self.schedule.steps:
                    coming = pool.submit(self.batch_at, step)
                yield step, batch


def moving_mean(module: nn.Module, share: float) -> AveragedModel:
    """A mean of a module's weights of which each step leaves a share, as an averaged teacher is.

    The first steps leave less, so that the mean forgets what the module began with: after n of them the share
    is at most 1 - 1 / (n + 1) (Tarvainen and Valpola, NeurIPS 2017, in its released code).
    """

    def renew(mean: Tensors, weights: Tensors, steps: Tensor | int) -> None:
        torch._foreach_lerp_(mean, weights, 1 - min(share, 1 - 1 / (float(steps) + 1)))

    mean = AveragedModel(module, multi_avg_fn=renew)
    mean.requires_grad_(False)
    return mean.eval()
