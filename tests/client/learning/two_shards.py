"""The same few steps, by one process or by one of several that a launcher starts; prints the outcome."""

import json
import sys

import torch
from torch import Tensor, nn

from client.learning.methods.simkd import squared_loss
from client.learning.processes import launched
from client.learning.training import Schedule, Training, TrainingStep
from client.learning.training_set import step_seed

ROWS, STEPS = 8, 5


def main() -> None:
    """In double precision, so that nothing but the arithmetic itself is left to tell the two apart."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()
    losses: list[float] = []
    with launched("cpu") as (processes, _):

        def batch_at(step: int) -> tuple[Tensor, Tensor]:
            generator = torch.Generator().manual_seed(step_seed(1, step))
            inputs = torch.randn(ROWS, 3, 6, 6, generator=generator, dtype=torch.float64)
            targets = torch.randn(ROWS, 5, generator=generator, dtype=torch.float64)
            targets[: ROWS // 2 - 1] = 0  # mostly those of the first process: shares are not alike
            shard = processes.shard(ROWS)
            return inputs[shard], targets[shard]

        def on_step(progress: TrainingStep) -> None:
            losses.append(progress.loss.item())

        schedule = Schedule(STEPS, 1e-2, evaluations=1, cosine=False)
        parameters = list(module.parameters())
        Training(module, parameters, batch_at, squared_loss, schedule, processes=processes).run(
            on_step=on_step
        )
        weights = [value for tensor in module.state_dict().values() for value in tensor.flatten().tolist()]
        if processes.is_main:
            json.dump({"losses": losses, "weights": weights}, sys.stdout)


if __name__ == "__main__":
    main()
