"""What a run refuses before it buys anything, and what it goes on with."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from client.errors import UsageError
from client.learning.methods import METHODS, class_directions
from client.learning.processes import Processes, even_shard
from client.learning.recipe import Recipe, Variant
from client.learning.scores import Score
from client.learning.training import TrainingStep
from client.progress import Display
from client.results.records import MetricsRow, Plan, Summary
from client.runs.cells import Cell
from client.runs.context import RunContext
from client.runs.dataset import read_dataset
from client.runs.distillation import Distillation
from client.runs.folder import RunFolder
from client.runs.memo import Memo
from client.runs.targets import Targets
from client.runs.trainer import Trainer
from tests.client.toy import CLASSES, draw, make_folder, run_config, table_of, tiny_student


class _First(Processes):
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
    config = run_config(data, method="vl2v-adip", student="test_efficientnet", unlabelled=(str(pool),))
    folder = RunFolder(tmp_path / "run")
    folder.begin(config)
    run = Distillation(
        config,
        folder,
        None,
        RunContext(Display.of_nobody(), "cpu", tmp_path / "pixels", processes=_First(count)),
    )
    with pytest.raises(UsageError, match=f"cannot be shared evenly by {count} processes"):
        run.prepare()


@pytest.mark.parametrize(("method", "frozen"), [("vl2v-adip", 0.95), ("vl2v-adip", 0.9), ("erm", 1.0)])
def test_a_recipe_that_freezes_all_that_a_method_trains_is_refused(
    tmp_path: Path, method: str, frozen: float
) -> None:
    """The default student has 8 groups of layers; `erm` trains its classifier as well."""
    data, recipe = make_folder(tmp_path / "toy", images=5), replace(Recipe(), frozen=frozen)
    config = run_config(data, method=method, student="tf_efficientnet_lite0", recipe=recipe)
    folder = RunFolder(tmp_path / "run")
    folder.begin(config)
    run = Distillation(config, folder, None, RunContext(Display.of_nobody(), "cpu", tmp_path / "pixels"))
    if frozen != 0.95:
        assert run.check().train
        return
    with pytest.raises(
        UsageError, match=r"frozen is 0\.95, which freezes all layers of tf_efficientnet_lite0"
    ):
        run.check()


def raise_interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("method", ["erm", "linear-probe"])
def test_what_another_version_left_half_trained_is_gone_on_with_only_where_it_settles_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, changed: bool
) -> None:
    """The settings are the same; the steps, or the images of a batch, are those that follow from the data."""
    data = make_folder(tmp_path / "toy", images=5)
    recipe = Recipe(steps=4, align_steps=4, passes=0, images_per_domain=1, align_images_per_domain=2)
    config = run_config(data, method=method, recipe=recipe, **tiny_student(tmp_path))
    folder, said = RunFolder(tmp_path / "run"), StringIO()
    folder.begin(config)

    def execute() -> Summary | None:
        return Distillation(
            config,
            folder,
            None,
            RunContext(Display(Console(file=said, width=200)), "cpu", tmp_path / "pixels"),
            onnx=False,
        ).execute()

    settled = Recipe.settled
    with monkeypatch.context() as patched:  # as another version
        if changed:
            patched.setattr(
                Recipe,
                "settled",
                lambda self, **of: replace(settled(self, **of), steps=6, align_images_per_domain=1),
            )
        patched.setattr("client.runs.trainer.save_student", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            execute()
    left = [file for file in (folder.checkpoint, folder.aligned) if file.exists()]
    before = [file.stat().st_mtime_ns for file in left]
    assert left
    summary = execute()
    assert summary is not None
    assert summary.steps == 4
    assert ("Going on after step" in said.getvalue()) == (method == "erm" and not changed)
    assert ("Training begins anew" in said.getvalue()) == (method == "erm" and changed)
    if method != "erm":
        assert ([file.stat().st_mtime_ns for file in left] == before) == (not changed)


def test_a_run_goes_on_and_stands_where_its_targets_are_rounded_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are by another number of threads, or another processor."""
    data = make_folder(tmp_path / "toy", images=5)
    recipe = Recipe(steps=4, align_steps=4, passes=0, images_per_domain=1, align_images_per_domain=2)
    config = run_config(data, method="label-only", recipe=recipe, **tiny_student(tmp_path))
    folder, said = RunFolder(tmp_path / "run"), StringIO()
    folder.begin(config)

    def execute(*, rounded: float) -> None:
        monkeypatch.setattr(
            "client.runs.target_builder.class_directions",
            lambda count: (1 + rounded) * class_directions(count),
        )
        Distillation(
            config,
            folder,
            None,
            RunContext(Display(Console(file=said, width=200)), "cpu", tmp_path / "pixels"),
            onnx=False,
        ).execute()

    with monkeypatch.context() as patched:
        patched.setattr("client.runs.trainer.save_student", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            execute(rounded=0.0)
    aligned = folder.aligned.stat().st_mtime_ns
    execute(rounded=1e-6)
    assert "Going on after step" in said.getvalue()
    assert folder.aligned.stat().st_mtime_ns == aligned
    assert "trained already" not in said.getvalue()
    execute(rounded=-1e-6)
    assert "trained already" in said.getvalue()


def test_images_without_labels_are_of_no_domain_also_where_one_is_named_like_their_folder(
    tmp_path: Path,
) -> None:
    """A batch has images of each domain, and beside them unlabelled ones."""
    toy, pool = make_folder(tmp_path / "toy", images=5), tmp_path / "pool"
    pool.mkdir()
    draw("tall_bar", "blue", "yellow", seed=0).save(pool / "0.png")
    table = table_of(toy, tmp_path / "table.csv", "dark", "light", "red")
    table.write_text(table.read_text().replace(",light,", f",{pool},"))
    config = run_config(table, method="vl2v-adip", unlabelled=(str(pool),))
    dataset = read_dataset(config, Display.of_nobody())
    run = Distillation(
        config,
        RunFolder(tmp_path / "run"),
        None,
        RunContext(Display.of_nobody(), "cpu", tmp_path / "pixels"),
    )
    data = run._training_set(dataset, Targets(torch.zeros(31, 2), dataset.train, None, 2, ""))
    assert sorted(data.domains.tolist()) == [-1, *15 * [0], *15 * [1]]
    assert data.domains[dataset.unlabelled].tolist() == [-1]


def test_the_best_hold_out_that_is_shown_is_that_of_the_whole_run_also_after_a_resume(tmp_path: Path) -> None:
    config = run_config()
    run, shown = RunFolder(tmp_path), []
    trainer = Trainer(config, METHODS["erm"], run, Display.of_nobody(), device="cpu", memo=Memo())
    run.log(MetricsRow(stage="distill", step=50, loss=1.0, holdout_domain_mean_accuracy=0.9))
    run.log(MetricsRow(stage="distill", seconds=1.0))
    logged = trainer._logger("distill", lambda _, words: shown.append(words))
    logged(TrainingStep(100, torch.tensor(1.0), Score(accuracy=0.5, loss=1.0)))
    logged(TrainingStep(150, torch.tensor(1.0), Score(accuracy=0.95, loss=1.0)))
    assert shown == ["loss 1.000, best hold-out 90.0%", "loss 1.000, best hold-out 95.0%"]


def test_a_domain_that_a_table_holds_out_whole_does_not_count_in_a_batch(tmp_path: Path) -> None:
    """A batch is of the other source domain alone, here of an image, and 12 images are seen twice."""
    toy = make_folder(tmp_path / "toy", images=5)
    table = table_of(toy, tmp_path / "table.csv", "dark", "light", "red", held_out="light")
    recipe = Recipe(steps=1, images_per_domain=1, domains_in_batch=1, evaluations=1)
    config = run_config(table, recipe=recipe, **tiny_student(tmp_path))
    folder = RunFolder(tmp_path / "run")
    folder.begin(config)

    def run(count: int) -> Distillation:
        return Distillation(
            config,
            folder,
            None,
            RunContext(Display.of_nobody(), "cpu", tmp_path / "pixels", processes=_First(count)),
            onnx=False,
        )

    with pytest.raises(UsageError, match="The 1 images of a batch cannot be shared evenly by 2 processes"):
        run(2).check()
    summary = run(1).execute()
    assert summary is not None
    assert summary.steps == folder.record(Plan, folder.plan).steps == 24
    asks_at_each_step = config.changed(method="unlimited", recipe=recipe.with_steps(5))
    cell = Cell(Variant("unlimited", "unlimited", recipe), asks_at_each_step, folder)
    assert cell.result.queries == len(CLASSES) + 6 * 12 + 5
