"""What a run refuses before it buys anything."""

from pathlib import Path

import pytest

from client.errors import UsageError
from client.learning.processes import SingleProcess, even_shard
from client.learning.recipe import Recipe
from client.progress import Display
from client.runs.distillation import Distillation
from client.runs.folder import RunConfig, RunFolder
from tests.client.toy import draw, make_folder


class _First(SingleProcess):
    """The first of several processes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def shard(self, rows: int) -> slice:
        return even_shard(rows, 0, self._count)


@pytest.mark.parametrize("count", [3, 32, 5])
def test_processes_share_a_batch_with_images_without_labels_and_one_without_them(
    tmp_path: Path, count: int
) -> None:
    """A batch is of 32 labelled images, and of 16 without a label if any of these is bought."""
    data, pool = make_folder(tmp_path / "toy", images=5), tmp_path / "pool"
    pool.mkdir()
    draw("tall_bar", "blue", "yellow", seed=0).save(pool / "0.png")
    config = RunConfig(
        str(data),
        "red",
        "vl2v-adip",
        "test_efficientnet",
        32,
        0,
        "stratified",
        Recipe(),
        unlabelled=(str(pool),),
    )
    folder = RunFolder(tmp_path / "run")
    folder.begin(config)
    run = Distillation(
        config,
        folder,
        None,
        Display.of_nobody(),
        device="cpu",
        pixels=tmp_path / "pixels",
        processes=_First(count),
    )
    with pytest.raises(UsageError, match=f"cannot be shared evenly by {count} processes"):
        run.prepare()
