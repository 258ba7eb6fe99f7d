"""Images in eight bits: as float32 has them but for a little, made once, and another fingerprint."""

import ctypes
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from shared.encoding import from_wire
from tests.support.tiny_clip import write_tiny_clip
from tests.support.vendor_process import VendorProcess
from tests.vendor_service.encoder.drawn import icons, unpack_pool
from vendor_service.encoder import quantized as quantizing
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.quantized import Calibration
from vendor_service.encoder.queries import Vectors
from vendor_service.encoder.sources import find_model
from vendor_service.errors import OperatorError, UsageError

CPUS = [torch.device("cpu")] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_pool(tmp_path_factory.mktemp("pool"), every=30)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many images as it takes at least, or hardly more."""
    return unpack_pool(tmp_path_factory.mktemp("few"), every=160)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the vendor's command keeps what it has made."""
    return tmp_path_factory.mktemp("cache")


def load(dtype: str, name: str = "icon-clip", **more: Path) -> ClipModel:
    return ClipModel(find_model(name, None), CPUS, dtype, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exact() -> ClipModel:
    return load("float32")


@pytest.fixture(scope="module")
def small(folder: Path, cache: Path) -> ClipModel:
    return load("int8", calibration=folder, kept_in=cache / "tuition" / "int8")


def vectors(model: ClipModel, images: Sequence[Image.Image]) -> Vectors:
    return model.encode_images([model.preprocessing.resize(each) for each in images])


def test_images_are_near_those_of_float32_and_name_the_same_things(
    exact: ClipModel, small: ClipModel
) -> None:
    images, labels = icons(every=6)
    rows, expected = vectors(small, images), vectors(exact, images)
    assert np.sum(rows * expected, axis=1).mean() > 0.99
    assert not np.array_equal(rows, expected)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    classes = sorted(set(labels))
    texts = exact.encode_texts([f"a photo of a {each}" for each in classes])
    known = np.array([classes.index(label) for label in labels])
    right = [np.mean((found @ texts.T).argmax(axis=1) == known) for found in (rows, expected)]
    assert abs(right[0] - right[1]) < 0.02, right


def test_an_image_has_one_vector_in_whatever_batch_and_on_whatever_thread(small: ClipModel) -> None:
    images = icons(every=100)[0][: small.replicas[0].buckets.largest]
    together = vectors(small, images)
    alone = np.concatenate([vectors(small, [each]) for each in images])
    assert np.abs(together - alone).max() < small.tolerance / 10

    def encode(number: int) -> Vectors:
        replica = small.replicas[number % 2]
        staged = replica.stage("image", [small.preprocessing.resize(each) for each in images])
        return replica.encode("image", staged)

    with ThreadPoolExecutor(2) as pool:
        for rows in pool.map(encode, range(20)):
            assert np.array_equal(rows, together)


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux's stack for signals")
@pytest.mark.usefixtures("small", "without_graphs")
def test_whoever_loads_it_can_be_signalled_and_texts_are_those_of_float32(folder: Path, cache: Path) -> None:
    """OpenVINO would leave the thread without its stack for signals: the next one would end the process.

    Texts are the same bit for bit where both run as they are: which of several graphs is the fastest hangs on
    the moment.
    """
    before = signal_stack()
    kept = load("int8", calibration=folder, kept_in=cache / "tuition" / "int8")
    assert signal_stack() == before
    assert vectors(kept, icons(every=1000)[0]).any()
    assert signal_stack() == before
    texts = ["a photo of a cat", "x"]
    assert np.array_equal(kept.encode_texts(texts), load("float32").encode_texts(texts))


def signal_stack() -> bytes:
    """The stack on which this thread handles signals: where, whether, how large."""
    told = ctypes.create_string_buffer(24)
    assert ctypes.CDLL(None).sigaltstack(None, told) == 0
    return told.raw


def test_it_is_made_once_and_kept(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = icons(every=200)
    tiny, kept_in = write_tiny_clip(tmp_path / "tiny", seed=1), tmp_path / "kept" / "int8"
    first = load("int8", tiny, calibration=few, kept_in=kept_in)
    (kept,) = kept_in.iterdir()

    def unexpected(*_: object) -> None:
        raise AssertionError("it was made again")

    with monkeypatch.context() as without:
        without.setattr(quantizing, "_made", unexpected)
        again = load("int8", tiny, calibration=few, kept_in=kept_in)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(vectors(again, images), vectors(first, images))
    (kept / "image_tower.xml").write_text("damaged")
    mended = load("int8", tiny, calibration=few, kept_in=kept_in)
    assert np.array_equal(vectors(mended, images), vectors(first, images))
    assert (kept / "image_tower.xml").read_text() != "damaged"


def test_what_it_was_measured_on_is_part_of_the_fingerprint(
    exact: ClipModel, small: ClipModel, folder: Path, tmp_path: Path
) -> None:
    preprocessing = Preprocessing(exact.preprocessing.config)
    measured = Calibration.read(folder, preprocessing)
    assert Calibration.read(folder, preprocessing).digest == measured.digest
    others = unpack_pool(tmp_path, every=60)
    assert Calibration.read(others, preprocessing).digest != measured.digest
    assert small.fingerprint != exact.fingerprint


def test_a_model_that_does_not_bear_it_is_not_served(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, file = write_tiny_clip(tmp_path / "tiny", seed=1), tmp_path / "tiny" / "open_clip_model.safetensors"
    # With weights as large as that, it bears it less well.
    save_file({name: 4 * each if each.ndim > 1 else each for name, each in load_file(file).items()}, file)
    monkeypatch.setattr(quantizing, "FAITHFUL", 0.99999)
    with pytest.raises(OperatorError, match=r"does not bear int8.* mean cosine of 0\.9"):
        load("int8", tiny, calibration=few, kept_in=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_nobody_is_told_that_it_is_used(small: ClipModel) -> None:
    assert small.dtype == "int8"
    assert sys.modules["openvino_telemetry"] is None


def test_what_is_missing_is_said_before_anything_is_loaded(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="`calibration` in a file of models"):
        load("int8")
    with pytest.raises(UsageError, match="int8 is for processors"):
        ClipModel(find_model("icon-clip", None), [torch.device("cuda")], "int8", calibration=few)
    with pytest.raises(UsageError, match="0 images are there, and int8 takes 32 at least"):
        load("int8", calibration=tmp_path)
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"0\.png is no image"):
        load("int8", calibration=tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"pip install 'tuition\[int8\]'"):
        load("int8", calibration=few)


def test_both_tiers_are_sold_beside_each_other_at_their_prices(
    small: ClipModel, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    file = tmp_path / "models.toml"
    file.write_text(
        '[[model]]\nid = "exact"\nsource = "icon-clip"\ndefault = true\ndtype = "float32"\n'
        'prices.standard = {image_micros = 100}\n[[model]]\nid = "quick"\nsource = "icon-clip"\n'
        f'dtype = "int8"\ncalibration = "{folder}"\nprices.standard = {{image_micros = 60}}\n'
    )
    (image,), _ = icons(every=10_000)
    image.save(tmp_path / "icon.png")
    with VendorProcess(tmp_path, "--models", str(file)) as vendor:
        key = vendor.create_key()
        answers = {}
        for model in ("exact", "quick"):
            answer = httpx.post(
                f"{vendor.url}/embed",
                headers={"authorization": f"Bearer {key}"},
                data={"model": model, "encoding": "base64"},
                files={"image": (tmp_path / "icon.png").read_bytes()},
                timeout=30,
            )
            assert answer.status_code == 200, answer.text
            answers[model] = answer.json()
        shown = httpx.get(f"{vendor.url}/v1/models", headers={"authorization": f"Bearer {key}"})
    listed = shown.json()["data"]
    assert [each["dtype"] for each in listed] == ["float32", "int8"]
    assert [answers[name]["usage"]["cost_micros"] for name in ("exact", "quick")] == [100, 60]
    rows = [from_wire(answers[name]["data"][0]["embedding"], 256) for name in ("exact", "quick")]
    assert 0.9 < float(rows[0] @ rows[1]) < 1
    assert listed[0]["fingerprint"] != listed[1]["fingerprint"] == small.fingerprint
