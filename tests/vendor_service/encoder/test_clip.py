"""The bundled model and any other: found by name, fingerprinted, and the same in every batch."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from unittest.mock import Mock

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

import vendor_service
from shared.embeddings import Kind
from tests.support import tiny_clip
from tests.vendor_service.encoder.drawn import icons
from vendor_service.encoder import clip
from vendor_service.encoder.clip import ClipModel, choose_devices
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.facts import Dtype
from vendor_service.encoder.initialisation import WithoutDrawing
from vendor_service.encoder.queries import Vectors
from vendor_service.encoder.replica import Replica, Staged
from vendor_service.encoder.sources import ModelSource, find_model
from vendor_service.errors import OperatorError, UsageError
from vendor_service.metrics import Metrics

Item = TypeVar("Item")
CPU = [torch.device("cpu")]
BUNDLED = Path(vendor_service.__file__).with_name("models") / "icon_clip"


@pytest.fixture(scope="module")
def model() -> ClipModel:
    return ClipModel(find_model("icon-clip", None), CPU)


def test_the_bundled_model_knows_icons(model: ClipModel) -> None:
    images, labels = icons(every=10)
    classes = sorted(set(labels))
    prompts = model.encode_texts([f"a photo of a {each}" for each in classes])
    rows = model.encode_images([model.preprocessing.resize(image) for image in images])
    guesses = [classes[best] for best in (rows @ prompts.T).argmax(axis=1)]
    assert np.mean([guess == label for guess, label in zip(guesses, labels, strict=True)]) > 0.7
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_it_answers_as_open_clip_itself_does(model: ClipModel) -> None:
    own, _, transform = open_clip.create_model_and_transforms(f"local-dir:{BUNDLED}")
    images, _ = icons(every=200)
    with torch.inference_mode():
        expected = own.eval().encode_image(torch.stack([transform(each) for each in images]), normalize=True)
    rows = model.encode_images([model.preprocessing.resize(each) for each in images])
    assert np.abs(rows - expected.numpy()).max() < model.tolerance


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), pytest.param("bfloat16", 1e-2, marks=pytest.mark.slow)]
)
def test_a_vector_does_not_depend_on_its_batch(dtype: Dtype, tolerance: float) -> None:
    model = ClipModel(find_model("icon-clip", None), CPU, dtype)
    assert tolerance <= model.tolerance
    images, labels = icons(every=120)
    pixels = [model.preprocessing.resize(image) for image in images]
    check_batches(model.encode_images, pixels, tolerance)
    check_batches(model.encode_texts, labels, tolerance)


def check_batches(encode: Callable[[Sequence[Item]], Vectors], items: list[Item], tolerance: float) -> None:
    together = encode(items)
    for size in (1, 5, 8):
        apart = np.concatenate([encode(items[start : start + size]) for start in range(0, len(items), size)])
        assert np.abs(together - apart).max() <= tolerance
    assert np.abs(together - encode(items[::-1])[::-1]).max() <= tolerance


def edit_config(folder: Path, section: str, name: str, value: Any) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config[section][name] = value
    path.write_text(json.dumps(config))


def nudge_a_weight(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    weights = load_file(path)
    weights["text_projection"][0, 0] += 0.01
    save_file(weights, path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "a weight": nudge_a_weight,
    "the preprocessing": lambda folder: edit_config(folder, "preprocess_cfg", "interpolation", "bilinear"),
    "the activation": lambda folder: edit_config(folder, "model_cfg", "quick_gelu", True),
}


@pytest.mark.usefixtures("without_graphs")
def test_the_fingerprint_is_of_the_files_and_nothing_else(model: ClipModel, tmp_path: Path) -> None:
    # Written down: it must be the same on every machine and in every later version.
    assert model.fingerprint == "fp_0af18def567ad08071995aa76a5061a3"
    copy = tmp_path / "moved"
    shutil.copytree(BUNDLED, copy)
    moved = ClipModel(find_model(f"local-dir:{copy}", None), CPU)
    assert (moved.id, moved.fingerprint) == ("moved", model.fingerprint)


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with_whatever_changes_the_vectors(tmp_path: Path, change: str) -> None:
    name = tiny_clip.write_tiny_clip(tmp_path / "changed", seed=1)
    before = ClipModel(find_model(name, None), CPU).fingerprint
    assert ClipModel(find_model(name, None), CPU).fingerprint == before
    CHANGES[change](tmp_path / "changed")
    assert ClipModel(find_model(name, None), CPU).fingerprint != before


def test_the_fingerprint_tells_dtypes_apart_and_bfloat16_is_close(model: ClipModel) -> None:
    half = ClipModel(find_model("icon-clip", None), CPU, "bfloat16")
    assert half.fingerprint != model.fingerprint
    images, labels = icons(every=100)
    pixels = [model.preprocessing.resize(image) for image in images]
    assert (half.encode_images(pixels) * model.encode_images(pixels)).sum(axis=1).min() > 0.99
    assert (half.encode_texts(labels) * model.encode_texts(labels)).sum(axis=1).min() > 0.99


@pytest.mark.parametrize(
    ("name", "pretrained", "hint"),
    [
        ("ViT-B-33", "openai", "ViT-B-32"),
        ("icon-klip", None, "icon-clip"),
        ("ViT-B-32", None, "laion2b_s34b_b79k"),
        ("ViT-B-32", "openay", "openai"),
        ("local-dir:/nowhere", None, "open_clip_config.json"),
    ],
)
def test_a_model_that_does_not_exist_is_a_usage_error_with_a_hint(
    name: str, pretrained: str | None, hint: str
) -> None:
    with pytest.raises(UsageError, match=hint):
        find_model(name, pretrained)


def test_a_folder_without_good_weights_is_an_error(tmp_path: Path) -> None:
    shutil.copy(BUNDLED / "open_clip_config.json", tmp_path)
    source = find_model(f"local-dir:{tmp_path}", None)
    with pytest.raises(OperatorError, match="cannot be loaded"):
        ClipModel(source, CPU)
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        find_model(f"local-dir:{tmp_path}", None)


def test_a_file_that_lacks_one_weight_is_an_error_and_nothing_is_made_up_for_it(tmp_path: Path) -> None:
    source = find_model(tiny_clip.write_tiny_clip(tmp_path, seed=1), None)
    file = tmp_path / "open_clip_model.safetensors"
    weights = load_file(file)
    for name in weights:
        save_file({each: kept for each, kept in weights.items() if each != name}, file)
        with pytest.raises(OperatorError, match="cannot be loaded"):
            ClipModel(source, CPU)


def test_no_weight_is_drawn_that_is_read_from_a_file_afterwards() -> None:
    with WithoutDrawing():
        layer = torch.nn.Linear(3, 3)
        torch.nn.init.zeros_(layer.weight)
        for draw in (torch.nn.init.kaiming_uniform_, torch.nn.init.trunc_normal_, torch.nn.init.normal_):
            assert draw(layer.weight).eq(0).all()
        assert torch.zeros(2).normal_(std=0.02).eq(0).all()
        assert torch.nn.init.ones_(layer.weight).eq(1).all()
    torch.nn.init.normal_(layer.weight)
    assert layer.weight.ne(1).all()


class KeepsItsAngles(torch.nn.Module):
    """As timm's rotary embeddings: what angles follow from stays in float32, whatever becomes of the rest."""

    angles: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.register_buffer("angles", torch.rand(3), persistent=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        angles = self.angles
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.angles = angles
        return self


def test_a_copy_in_bfloat16_is_what_the_model_makes_of_itself_and_shares_nothing_with_it() -> None:
    model = KeepsItsAngles()
    copied = clip._rounded(model)
    assert torch.equal(copied.angles, model.angles)
    assert torch.equal(copied.linear.weight, model.linear.weight.bfloat16())
    assert (copied.linear.weight.dtype, model.linear.weight.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.usefixtures("without_graphs")
def test_memory_of_a_gpu_is_given_back_once_a_model_is_loaded_and_again_once_its_engine_has_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[torch.nn.Module]] = []
    given_back: list[list[bool]] = []  # of each model, whether it was gone, whenever memory was given back
    rounded = clip._rounded

    def note(exact: torch.nn.Module, dtype: torch.dtype) -> Any:
        made = rounded(exact, dtype)
        kept.extend(map(weakref.ref, (exact, made)))
        return made

    monkeypatch.setattr(clip, "_rounded", note)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: given_back.append([each() is None for each in kept])
    )
    source = find_model(tiny_clip.write_tiny_clip(tmp_path / "tiny", seed=1), None)
    gc.disable()  # a server's collector leaves alone what it began with
    try:
        engine = Engine(ClipModel(source, CPU, "bfloat16"), None, 0, Metrics())
        engine.start()
        engine.batcher.submit("a", "text", [engine.model.canaries()[1]]).result(20)
        engine.close()
    finally:
        gc.enable()
    assert given_back == [[True, False], [True, True]]


class Seen(Exception):
    """Ends a start once what a test is about was seen."""


def test_texts_are_looked_at_once_they_have_arrived_on_their_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU copies beside what it computes; here a copy is done once somebody waits for it."""
    stage = Replica.stage

    def begin(replica: Replica, kind: Kind, items: Sequence[Any]) -> Staged:
        whole = stage(replica, kind, items).batch
        on_device = torch.zeros_like(whole)
        return Staged(on_device, len(items), Mock(arrive=lambda: on_device.copy_(whole)))

    def look(_model: Any, tokens: torch.Tensor, *_: Any) -> Any:
        assert tokens.any(dim=1).all()
        raise Seen

    monkeypatch.setattr(Replica, "stage", begin)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    computing = Mock(wait_event=lambda copied: copied.arrive())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    monkeypatch.setattr(clip, "short_texts", look)
    with pytest.raises(Seen):
        ClipModel(find_model(tiny_clip.write_tiny_clip(tmp_path / "tiny", seed=1), None), CPU, "float32")


@pytest.mark.usefixtures("without_graphs")
def test_an_open_clip_name_with_a_file_of_weights_can_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", tiny_clip._CONFIG)
    weights = tmp_path / "mine.pt"
    torch.save(open_clip.create_model("ViT-tiny").state_dict(), weights)
    served = ClipModel(find_model("ViT-tiny", str(weights)), CPU)
    assert (served.id, served.dimensions, served.image_size) == ("ViT-tiny/mine", 24, 32)


def test_weights_trained_with_the_fast_gelu_are_served_with_it() -> None:
    assert find_model("ViT-B-16", "openai").quick_gelu
    assert not find_model("ViT-B-16", "laion2b_s34b_b88k").quick_gelu


@pytest.mark.usefixtures("without_graphs")
def test_the_fast_gelu_of_a_tag_is_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", tiny_clip._CONFIG)
    tiny_clip.write_tiny_clip(tmp_path / "tiny", seed=0)
    source = find_model("ViT-tiny", str(tmp_path / "tiny" / "open_clip_model.safetensors"))
    plain = ClipModel(source, CPU, "float32")
    monkeypatch.setattr(ModelSource, "quick_gelu", True)
    fast = ClipModel(source, CPU, "float32")
    assert np.abs(plain.encode_texts(["a cat"]) - fast.encode_texts(["a cat"])).max() > plain.tolerance
    assert plain.fingerprint != fast.fingerprint
    named = replace(source, config=source.config | {"quick_gelu": True})
    assert ClipModel(named, CPU, "float32").fingerprint == fast.fingerprint


def test_every_size_of_batch_is_compiled_also_of_a_further_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: set[tuple[str, int, int]] = set()  # kind, size of the batch, dimensions

    def note(graph: Any, inputs: Sequence[Any]) -> Any:
        dimensions = graph(*inputs)[0].shape[1]
        for each in inputs:
            if isinstance(each, torch.Tensor) and each.shape[1:] in ((3, 32, 32), (16,)):
                compiled.add(("image" if each.ndim == 4 else "text", len(each), dimensions))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=note))
    monkeypatch.setattr("vendor_service.encoder.replica._CPU_SIZES", (1, 2))
    # One size more than PyTorch compiles of a function unless it is told to. Its settings are no attributes
    # that pytest could put back: monkeypatch would delete this one for all tests after it.
    with torch._dynamo.config.patch(recompile_limit=1):
        _every_size_is_compiled(compiled, tmp_path, monkeypatch)


def _every_size_is_compiled(
    compiled: set[tuple[str, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dimensions in (24, 48):
        monkeypatch.setattr(tiny_clip, "_CONFIG", tiny_clip._CONFIG | {"embed_dim": dimensions})
        source = find_model(tiny_clip.write_tiny_clip(tmp_path / "tiny", seed=1), None)
        model = ClipModel(source, 2 * CPU, "float32", compiled=True)
        sizes = model.replicas[0].buckets.sizes
        assert compiled >= {(kind, size, dimensions) for kind in ("image", "text") for size in sizes}
    before = len(compiled)
    with ThreadPoolExecutor(1) as worker:
        worker.submit(model.replicas[1].warm_up, *model.canaries()).result()
    assert len(compiled) == before


def test_a_model_that_cannot_be_compiled_is_an_error_that_says_what_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: Any, inputs: Sequence[Any]) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fail))
    source = find_model(tiny_clip.write_tiny_clip(tmp_path / "tiny", seed=1), None)
    with pytest.raises(OperatorError, match=r"(?s)cannot be compiled.* g\+\+, .*No working C\+\+ compiler"):
        ClipModel(source, CPU, "float32", compiled=True)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "cpu,"])
def test_a_device_that_is_not_here_is_a_usage_error(device: str) -> None:
    with pytest.raises(UsageError, match="no device"):
        choose_devices(device)


def test_a_device_of_a_kind_that_cannot_serve_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot serve on the device 'meta'"):
        choose_devices("cpu,meta")


def test_processors_and_gpus_do_not_share_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "_device", torch.device)
    assert [str(each) for each in choose_devices("cuda:0,cuda:1")] == ["cuda:0", "cuda:1"]
    with pytest.raises(UsageError, match="a CPU and a GPU at once"):
        choose_devices("cuda,cpu")
