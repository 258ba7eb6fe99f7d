"""What is dear to decode or tokenize, sent to the real vendor: bounded, uncharged, nobody else's trouble."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from shared.encoding import from_wire
from shared.images.decoder import ImageDecoder
from shared.images.limits import ImageLimits, count_parts, count_scans
from tests.shared.processes.test_processes import linux
from tests.support.tiny_clip import write_tiny_clip
from tests.support.vendor_process import VendorProcess, alive, below, wait_until
from tests.vendor_service import hostile_images
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, error_code, image_file, image_input
from tests.vendor_service.run.test_metrics import Scrape
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.errors import APIError

CAT = {"text": "a photo of a cat"}
PREPROCESSING = Preprocessing({"size": 64, "mean": (0.0,) * 3, "std": (1.0,) * 3})
DECODER = ImageDecoder(PREPROCESSING, ImageLimits(max_bytes=2**24, max_pixels=5 * 10**7), memory_bytes=2**30)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalVendor(tmp_path_factory.mktemp("vendor")) as local:
        yield local


def test_scans_are_counted_by_markers_and_not_among_metadata() -> None:
    assert count_scans(hostile_images.jpeg_of_scans(40), 64) == 40
    assert count_scans(hostile_images.jpeg_of_scans(1000), 64) == 65
    assert count_scans(hostile_images.jpeg_with_thumbnail_scans(), 64) == 1
    assert count_scans(image_file(form="JPEG"), 64) == 1
    assert count_scans(image_file(), 64) == 0
    for cut in range(0, 600, 7):
        assert count_scans(hostile_images.jpeg_of_scans(20)[:cut], 64) <= 20
    assert DECODER.decode(hostile_images.jpeg_with_thumbnail_scans()).shape == (64, 64, 3)


@pytest.mark.parametrize(("scans", "side"), [(1000, 100), (65, 100), (30, 7000)])
def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded(scans: int, side: int) -> None:
    with pytest.raises(APIError, match="scans") as refused:
        DECODER.decode(hostile_images.jpeg_of_scans(scans, side))
    assert refused.value.code == "image_too_large"


@pytest.mark.parametrize(
    "file", [hostile_images.png_of_texts(10_001), hostile_images.jpeg_of_comments(10_001)]
)
def test_a_file_of_too_many_parts_is_refused_before_it_is_decoded(file: bytes) -> None:
    with pytest.raises(APIError, match="chunks or segments") as refused:
        DECODER.decode(file)
    assert refused.value.code == "image_too_large"
    assert count_parts(file, 20_000) in range(10_001, 10_020)
    for cut in range(0, len(file), len(file) // 50):
        assert count_parts(file[:cut], 20_000) <= 10_020


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_large_files_of_usual_encoders_have_few_parts(form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8))
    noise.save(saved := BytesIO(), form)
    assert count_parts(saved.getvalue(), 10_000) <= len(saved.getvalue()) // 8000 + 20


def test_many_long_texts_at_once_are_embedded(vendor: LocalVendor) -> None:
    key = vendor.key()
    longest = [{"text": f"{number:04}" + 9996 * "\U0001f600"} for number in range(16)]  # 4 bytes a character
    assert vendor.embed(key, *longest).status_code == 200
    assert vendor.embed(key, CAT).status_code == 200


def test_a_bomb_is_refused_uncharged_and_its_neighbours_are_answered(vendor: LocalVendor) -> None:
    key, before = vendor.key(), Scrape(vendor)
    scans, comments = hostile_images.jpeg_of_scans(1000, 4000), hostile_images.png_of_texts()
    inputs = [image_input(), image_input(scans), CAT, image_input(comments), image_input()]
    answer = vendor.embed(key, *inputs, on_error="skip")
    assert answer.is_success, answer.text
    rows = answer.json()["data"]
    assert [row["index"] for row in rows] == [0, 2, 4]
    assert rows[0]["embedding"] == rows[2]["embedding"]
    assert vendor.account(key).queries_used == 3
    assert error_code(vendor.embed(key, image_input(comments))) == "image_too_large"
    killed = {"kind": "image", "reason": "time"}
    after = Scrape(vendor)
    # What its parts give away needs no process to be killed for it.
    assert after("preparation_restarts_total", **killed) == before("preparation_restarts_total", **killed)


def test_a_word_of_ten_thousand_letters_is_embedded_by_its_first_tokens(vendor: LocalVendor) -> None:
    answer = vendor.embed(vendor.key(), {"text": "a" * 10_000}, {"text": "a" * 9_000})
    one, other = (from_wire(row["embedding"], 256) for row in answer.json()["data"])
    assert np.allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "endless", ["é" * 2000 + "&" + "amp;" * 1900, "\u0420" + " " * 9990 + "\ufffd\ufffd"]
)
def test_a_text_that_takes_seconds_is_refused_uncharged_and_its_neighbours_are_answered(
    vendor: LocalVendor, endless: str
) -> None:
    """Each round of ftfy makes the next one necessary, thousands of times."""
    key, before = vendor.key(), Scrape(vendor)
    answer = vendor.embed(key, CAT, {"text": endless}, {"text": "a photo of a dog"}, on_error="skip")
    assert [row["index"] for row in answer.json()["data"]] == [0, 2]
    assert vendor.account(key).queries_used == 2
    killed = {"kind": "text", "reason": "time"}
    after = Scrape(vendor)
    assert after("preparation_restarts_total", **killed) == before("preparation_restarts_total", **killed) + 1


def test_a_known_text_is_not_tokenized_again(scripted: ScriptedTexts, tmp_path: Path) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        first = vendor.embed(key, CAT).json()["data"]
        preparation = vendor.app.state.models.default.encoder.preparation
        preparation.processes.close()
        assert vendor.embed(key, CAT).json()["data"] == first
        assert error_code(vendor.embed(key, {"text": "a dog"})) == "shutting_down"


def test_texts_do_not_wait_for_images_nor_one_account_for_another(vendor: LocalVendor) -> None:
    flood = [image_input(hostile_images.png_of_zeros(2500, 2500))] * 40
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(asked, vendor, vendor.key(), *flood)
        wait_until(lambda: Scrape(vendor)("preparation_inputs", kind="image") > 20, seconds=60)
        texts, one = vendor.key(), vendor.key()
        assert asked(vendor, texts, {"text": "a dog"}).is_success
        assert asked(vendor, one, image_input()).is_success
        assert Scrape(vendor)("preparation_inputs", kind="image") > 0
        assert not flooding.done()
        assert flooding.result().is_success


def asked(vendor: LocalVendor, key: str, *inputs: dict[str, str]) -> httpx.Response:
    """An answer for which there is plenty of time, on a connection of its own."""
    headers = {"authorization": f"Bearer {key}"}
    url = f"{vendor.http.base_url}/embed"
    return httpx.post(url, json={"inputs": inputs}, headers=headers, timeout=110)


def test_what_a_caller_leaves_is_not_decoded(vendor: LocalVendor) -> None:
    key = vendor.key()
    # Of such large ones at most one is decoded at a time: all of them would take half a minute.
    flood = [image_input(hostile_images.png_of_zeros(7000, 7000))] * 60
    with (
        httpx.Client(base_url=vendor.http.base_url, timeout=httpx.Timeout(30, read=1)) as hasty,
        pytest.raises(httpx.ReadTimeout),
    ):
        hasty.post("/embed", json={"inputs": flood}, headers={"authorization": f"Bearer {key}"})
    wait_until(lambda: Scrape(vendor)("preparation_inputs", kind="image") == 0)
    assert vendor.account(key).ledger_seq == 0
    assert vendor.embed(key, image_input()).is_success


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have vendors start as they do for an operator, and so the processes below them."""
    monkeypatch.setattr(VendorProcess, "forked", False)


@linux
@pytest.mark.slow  # tests/shared/processes holds it of the processes alone
@pytest.mark.usefixtures("launched")
def test_its_processes_end_with_a_vendor_that_is_killed(tmp_path: Path) -> None:
    vendor = VendorProcess(tmp_path, "--model", write_tiny_clip(tmp_path / "tiny", seed=1)).start()
    pids = below(vendor.pid)
    assert len(pids) >= 3  # the server, one for texts, at least one for images
    vendor.kill_alone()
    wait_until(lambda: not any(map(alive, pids)))


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("launched")
def test_a_vendor_that_is_interrupted_leaves_no_process_and_says_nothing_of_them(tmp_path: Path) -> None:
    vendor = VendorProcess(tmp_path).start()
    pids = below(vendor.pid)
    vendor.interrupt()
    wait_until(lambda: not any(map(alive, pids)))
    assert "Traceback" not in vendor.log.read_text()
    assert "died" not in vendor.log.read_text()
