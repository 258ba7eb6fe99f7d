"""How long training would take is worked out from few images, and leaves chance as it was."""

from pathlib import Path

import pytest
import torch

from client.learning.recipe import Recipe
from client.progress import Display
from client.runs import training_time
from client.runs.dataset import read_dataset
from client.runs.trainer import tensor_cores
from client.runs.training_time import Pace, training_seconds
from tests.client.toy import make_folder, run_config


def test_each_image_that_a_run_looks_at_or_learns_from_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_time, "_pace", lambda *_: Pace(looking=1.0, learning=1000.0))
    config = run_config(make_folder(tmp_path / "toy", images=5), method="vl2v-adip", target_domain="red")
    dataset = read_dataset(config, Display())
    recipe = Recipe().with_steps(10).settled(domains=2)
    looked = 6 * len(dataset.train) + recipe.evaluations * len(dataset.holdout)
    for unlabelled, in_batch in ((0, 32), (3000, 48)):
        seconds = training_seconds(config, dataset, recipe, unlabelled=unlabelled, device="cpu")
        assert seconds == looked + 2 * min(unlabelled, 2048) + 10 * in_batch * 1000
    by_erm = training_seconds(config.changed(method="erm"), dataset, recipe, unlabelled=0, device="cpu")
    assert by_erm == recipe.evaluations * len(dataset.holdout) + 10 * 32 * 1000


def test_the_pace_is_measured_without_weights_and_draws_nothing(tmp_path: Path) -> None:
    config = run_config(make_folder(tmp_path / "toy", images=5), student="test_efficientnet")
    dataset, before = read_dataset(config, Display()), torch.random.get_rng_state()
    recipe = Recipe().with_steps(10).settled(domains=3)
    seconds = training_seconds(config, dataset, recipe, unlabelled=0, device="cpu")
    assert seconds is not None
    assert 0 < seconds < 1000
    assert torch.equal(torch.random.get_rng_state(), before)
    by_weights = config.changed(student="open_clip:icon-clip")  # whose shape no name tells
    assert training_seconds(by_weights, dataset, recipe, unlabelled=0, device="cpu") is None


def test_matrices_are_multiplied_in_tf32_on_a_gpu_and_as_before_elsewhere() -> None:
    for device, expected in (("cuda", "high"), ("cpu", "highest")):
        with tensor_cores(torch.device(device)):
            assert torch.get_float32_matmul_precision() == expected
        assert torch.get_float32_matmul_precision() == "highest"
