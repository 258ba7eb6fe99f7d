"""Hostile images and too much at once: refused or answered, while the server goes on answering others."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.client.serving.test_serve import ask, error_of, picture
from tests.support.figures import holds
from tests.support.student_process import StudentProcess
from tests.support.vendor_process import forget_peak, resident_bytes
from tests.vendor_service.hostile_images import BOMBS

# The last is the end of what takes long, on a machine that does much else.
_REFUSALS = {"invalid_image", "image_too_large", "deadline_exceeded"}
_MOST_BYTES = 2 * 2**30
_REFUSED = {"JPEG of 1,000 scans", "PNG of 2.5 gigapixels", "PNG of 500,000 comments"}
_OF_EACH_KIND = _REFUSED | {
    "PNG with a profile that unpacks to 80 MB",
    "WebP of 49 megapixels",
}


@pytest.mark.long
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(_OF_EACH_KIND, id="of each kind"),
        pytest.param(BOMBS.keys() - _OF_EACH_KIND, id="all others", marks=pytest.mark.slow),
    ],
)
def test_no_image_ends_the_server_or_keeps_others_waiting(
    http: httpx.Client, served: StudentProcess, names: set[str]
) -> None:
    ended, slowest = set(), 0.0
    for name in names:
        content = BOMBS[name]()
        forget_peak(served.pid)
        with (
            httpx.Client(base_url=served.url, timeout=60) as attacker,
            ThreadPoolExecutor(1) as pool,
        ):
            attack = pool.submit(ask, attacker, content)
            while not attack.done():
                began = time.perf_counter()
                assert ask(http, picture()).status_code == 200
                slowest = max(slowest, time.perf_counter() - began)
                time.sleep(0.02)
            answer = attack.result()
            ended.add((name, answer.status_code if answer.status_code == 200 else error_of(answer)[0]))
        assert holds(resident_bytes(served.pid, "VmHWM") / 2**20, _MOST_BYTES / 2**20, "MiB"), name
    assert {code for _, code in ended} <= {200, *_REFUSALS}
    refused = {name for name, code in ended if code != 200}
    assert names & _REFUSED <= refused
    assert holds(slowest, 10, "s")
    assert "Traceback" not in served.log.read_text()


def test_cut_off_and_damaged_files_are_refused(http: httpx.Client) -> None:
    for form in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = picture(1, form)
        for content in (whole[: len(whole) // 2], whole[:20], b"\0" * 100 + whole):
            answer = ask(http, content)
            assert answer.status_code == 200 or error_of(answer)[0] in _REFUSALS
    assert error_of(ask(http, picture(1)[:200])) == ("invalid_image", "inputs.0.image")


def test_a_large_request_is_answered_whole(http: httpx.Client) -> None:
    files = [picture(seed) for seed in range(8)] * 32
    results = ask(http, *files).json()["results"]
    assert [each["name"] for each in results] == [f"{number}.png" for number in range(256)]
    assert error_of(ask(http, *files, picture())) == ("too_many_inputs", "inputs")


def test_more_than_it_takes_at_a_time_is_sent_away_for_a_while(run: Path, tmp_path: Path) -> None:
    code = "import client.serving.app as app; app._MOST_IMAGES = 4"
    with (
        StudentProcess(run, tmp_path, code=code) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        answer = ask(http, *[picture()] * 5)
        assert error_of(answer)[0] == "overloaded"
        assert answer.headers["retry-after"] == "1"
        assert ask(http, *[picture()] * 4).status_code == 200
