"""A served student asks a real vendor where it is not sure: once, within its budget, and in time."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, expect
from pydantic import ValidationError

from client import models
from client.api.students import load_student
from client.learning.rejection import Rejection
from client.learning.reliability import Reliability
from client.options.students import AskOptions, ServeOptions
from client.options.vendor import VendorOptions
from client.serving import app
from client.serving.answers import Answer
from client.serving.ask_queue import AskQueue
from client.serving.classify import ImageFile, OnError
from client.serving.deferring import AsSent, DeferringAnswerer
from client.serving.selection import CallersStreams, ShareOfTraffic
from client.vendors.query import Query
from shared.http import server
from tests.client.serving.test_serve import ask, error_of, picture, refused_start
from tests.client.toy import CLASSES
from tests.support.student_process import StudentProcess
from tests.support.tcp_proxy import TcpProxy
from tests.support.vendor_process import VendorProcess

_TEXTS = len(CLASSES)
Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture(scope="module")
def taught(run: Path, vendor_process: VendorProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student with what its file says when a vendor has taught it."""
    confidence = np.linspace(0.4, 1, 200)
    (model,) = models(VendorOptions(vendor=vendor_process.url))
    told = {
        "taught_by": model.fingerprint,
        "teacher_temperature": "4.0",
        "teacher_accuracy": "0.95",
        "reliability": Reliability.of(confidence, np.arange(200) % 200 < 200 * confidence).to_json(),
        # The student rejects everything from a rate of 0.1 on, its teacher from 0.2 on.
        "rejection": Rejection((0.0,) * 9 + (2.0,) * 41).to_json(),
        "teacher_rejection": Rejection((-1.0,) * 19 + (1.0,) * 31).to_json(),
    }
    file = onnx.load(run / "student.onnx")
    kept = [each for each in file.metadata_props if each.key not in told]
    del file.metadata_props[:]
    file.metadata_props.extend(kept)
    for key, value in told.items():
        file.metadata_props.add(key=key, value=value)
    path = tmp_path_factory.mktemp("taught") / "student.onnx"
    onnx.save(file, path)
    return path


@pytest.fixture
def key(vendor_process: VendorProcess, tmp_path: Path) -> str:
    key = vendor_process.create_key(quota=1000)
    (tmp_path / "key").write_text(key)
    return key


@pytest.fixture
def serve(taught: Path, tmp_path: Path, key: str, vendor_process: VendorProcess) -> Serve:
    """Serves the student with a vendor, a key and a cache; more options may be given."""
    assert key

    @contextmanager
    def served(*more: str, url: str = vendor_process.url) -> Iterator[httpx.Client]:
        options = ("--ask-vendor", url, "--api-key-file", str(tmp_path / "key"))
        cache = ("--cache", str(tmp_path / "cache.db"))
        with (
            StudentProcess(taught, tmp_path, *options, *cache, *more) as process,
            httpx.Client(base_url=process.url, timeout=60) as http,
        ):
            yield http

    return served


def _said(answer: httpx.Response) -> list[str]:
    return [each["answered_by"] for each in answer.json()["results"]]


def test_unsure_images_are_asked_about_once_and_answered_as_a_folder_is(
    serve: Serve, taught: Path, tmp_path: Path, key: str, vendor_process: VendorProcess
) -> None:
    files = [picture(seed) for seed in range(4)]
    with serve("--ask-share", "1", "--ask-budget", "100", "--ask-seconds", "25", "--keep", "kept") as http:
        first = ask(http, *files)
        assert _said(first) == ["vendor"] * 4
        charges = vendor_process.charges(key)
        assert (charges.queries, charges.cost_micros) == (_TEXTS + 4, first.json()["cost_micros"])
        again = ask(http, *files, picture(9))
        assert _said(again) == ["cache"] * 4 + ["vendor"]
        assert vendor_process.charges(key).cost_micros - charges.cost_micros == again.json()["cost_micros"]
        told = http.get("/v1/deferral").json()
        assert told["answered_by"] == {"student": 0, "cache": 4, "vendor": 5}
        assert (told["budget_left"], told["cost_micros"]) == (
            100 - _TEXTS - 5, vendor_process.charges(key).cost_micros,
        )  # fmt: skip
        metrics = http.get("/metrics").text
        assert 'tuition_images_total{answered_by="vendor"} 5' in metrics
        assert f"tuition_paid_micros {float(told['cost_micros'])}" in metrics
    assert len(list((tmp_path / "kept").iterdir())) == 5
    for number, file in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(file)
    options = AskOptions(
        vendor=vendor_process.url, share=1.0, api_key_file=tmp_path / "key", cache=tmp_path / "cache.db"
    )
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    found = load_student(taught).predict(paths, ask=options)
    assert set(found.answered_by.values()) == {"cache"}
    for path, result in zip(paths, first.json()["results"], strict=True):
        served = {each["class"]: each["confidence"] for each in result["top"]}
        assert served == pytest.approx(found.classes[str(path)], abs=1e-5)


def test_images_in_memory_are_asked_about_as_files_are(
    taught: Path, tmp_path: Path, key: str, vendor_process: VendorProcess
) -> None:
    options = AskOptions(
        vendor=vendor_process.url, share=1.0, api_key_file=tmp_path / "key", cache=tmp_path / "cache.db"
    )
    images = [Image.open(BytesIO(picture(seed))).convert("RGB") for seed in range(3)]
    images[0].save(tmp_path / "0.png")
    given = [np.asarray(images[1]), tmp_path / "0.png", images[2]]
    found = load_student(taught).predict(given, ask=options)
    assert found.answered_by == {"[0]": "vendor", str(tmp_path / "0.png"): "vendor", "[2]": "vendor"}
    assert vendor_process.charges(key).queries == found.queries_bought == _TEXTS + 3
    for image, answer in zip((images[1], images[0], images[2]), found.classes.values(), strict=True):
        image.save(tmp_path / "alone.png")
        (alone,) = load_student(taught).predict(tmp_path / "alone.png", ask=options).classes.values()
        assert alone == pytest.approx(answer, abs=1e-4)  # in the order given


def test_the_vendor_is_asked_for_callers_with_keys_or_on_this_machine_alone(
    serve: Serve, key: str, vendor_process: VendorProcess
) -> None:
    with serve("--ask-share", "1", "--ask-budget", "100", "--ask-seconds", "25") as http:
        # as proxies on this machine pass it on
        for stranger in ({"x-forwarded-for": "203.0.113.9"}, {"via": "1.1 proxy"}, {"host": "student:80"}):
            answer = http.post("/classify", files=[("image", ("0.png", picture()))], headers=stranger)
            assert _said(answer) == ["student"]
    assert vendor_process.charges(key).queries == 0
    with pytest.raises(ValidationError, match="--api-keys"):
        ServeOptions(host="0.0.0.0", ask=AskOptions(budget=5))
    known = ServeOptions(host="0.0.0.0", ask=AskOptions(budget=5), api_keys=Path("keys.txt"))
    assert known.ask is not None


def test_a_request_that_is_refused_is_not_asked_about_and_no_answer_of_it_counts(
    serve: Serve, key: str, vendor_process: VendorProcess
) -> None:
    files = [picture(1), picture(2), picture(3)[:-500]]
    with serve("--ask-share", "1", "--ask-budget", "100", "--ask-seconds", "25") as http:
        assert error_of(ask(http, *files)) == ("invalid_image", "inputs.2.image")
        assert vendor_process.charges(key).queries == 0
        assert set(http.get("/v1/deferral").json()["answered_by"].values()) == {0}
        assert _said(ask(http, *files, on_error="skip")) == ["vendor"] * 2
        assert http.get("/v1/deferral").json()["answered_by"] == {"student": 0, "cache": 0, "vendor": 2}


def test_what_the_student_rejects_is_not_asked_about_for_strangers_and_not_kept(
    serve: Serve, key: str, tmp_path: Path, vendor_process: VendorProcess
) -> None:
    limited = ("--ask-share", "1", "--ask-budget", str(_TEXTS + 3), "--ask-seconds", "25")
    with serve(*limited, "--reject", "0.1", "--keep", "kept") as http:  # at which it rejects everything
        results = ask(http, *map(picture, range(3))).json()["results"]
    assert {(each["answered_by"], each["class"]) for each in results} == {("student", None)}
    assert vendor_process.charges(key).queries == 0
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(("rate", "vendor_rejects"), [("0.1", False), ("0.2", True)])
def test_what_the_student_rejects_in_a_folder_is_asked_about_and_the_vendor_decides(
    taught: Path, tmp_path: Path, key: str, vendor_process: VendorProcess, rate: str, vendor_rejects: bool
) -> None:
    (tmp_path / "0.png").write_bytes(picture())
    options = AskOptions(
        vendor=vendor_process.url,
        share=1.0,
        api_key_file=tmp_path / "key",
        cache=tmp_path / "cache.db",
    )
    found = load_student(taught).predict(tmp_path / "0.png", reject=float(rate), ask=options)
    assert list(found.answered_by.values()) == ["vendor"]
    assert [named is None for named in found.named.values()] == [vendor_rejects]


def test_a_teacher_without_thresholds_is_not_asked_with_reject(
    run: Path, tmp_path: Path, vendor_process: VendorProcess
) -> None:
    options = ("--ask-vendor", vendor_process.url, "--ask-budget", "5", "--reject", "0.1")
    with (
        pytest.raises(AssertionError, match="when its teacher sees none of the classes"),
        StudentProcess(run, tmp_path, *options),
    ):
        pass


def test_a_budget_outlives_the_server_and_many_callers_at_once_do_not_exceed_it(
    serve: Serve, key: str, vendor_process: VendorProcess
) -> None:
    limited = ("--ask-share", "1", "--ask-budget", str(_TEXTS + 10), "--ask-seconds", "25")
    with serve(*limited) as http, ThreadPoolExecutor(8) as callers:
        said = list(callers.map(lambda seed: _said(ask(http, picture(seed % 15)))[0], range(30)))
    assert vendor_process.charges(key).queries == _TEXTS + 10
    assert said.count("vendor") <= 10
    assert said.count("student") >= 5
    with serve(*limited) as http:
        assert http.get("/v1/deferral").json()["budget_left"] == 0
        assert _said(ask(http, picture(100))) == ["student"]
    assert vendor_process.charges(key).queries == _TEXTS + 10


def test_a_share_is_held(serve: Serve, key: str, vendor_process: VendorProcess) -> None:
    with serve("--ask-share", "0.1", "--ask-budget", "1000", "--ask-seconds", "25") as http:
        said = [
            who
            for seed in range(8)
            for who in _said(ask(http, *map(picture, range(seed * 25, seed * 25 + 25))))
        ]
    assert 0 < sum(who != "student" for who in said) <= 0.1 * 200 + 20
    assert vendor_process.charges(key).images == said.count("vendor")


def test_a_vendor_that_is_away_keeps_nobody_waiting(serve: Serve, tmp_path: Path) -> None:
    limited = ("--ask-share", "1", "--ask-budget", "10", "--ask-seconds", "0.5")
    with serve(*limited, url="http://127.0.0.1:9") as http:
        began = time.monotonic()
        assert _said(ask(http, picture(), picture(1))) == ["student"] * 2
        assert time.monotonic() - began < 10  # and not the minutes that a purchase would try for
        assert http.get("/readyz").status_code == 200
    assert "the student answers alone" in (tmp_path / "student.log").read_text()


def test_a_vendor_that_falls_silent_is_not_waited_for(
    serve: Serve, key: str, vendor_process: VendorProcess, tmp_path: Path
) -> None:
    with _Relay(vendor_process.url) as relay:
        limited = ("--ask-share", "1", "--ask-budget", "50", "--ask-seconds", "1")
        with serve(*limited, url=f"http://127.0.0.1:{relay.port}") as http:
            relay.silent = True
            assert _said(ask(http, picture(50))) == ["student"]
            relay.silent = False
    assert vendor_process.charges(key).queries <= _TEXTS + 1


class _Relay(TcpProxy):
    """Passes connections on to a vendor; while it is silent, what comes in stays here."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.silent = False
        self._to = int(url.rsplit(":", 1)[1])

    def forward(self, caller: socket.socket) -> None:
        vendor = socket.create_connection(("127.0.0.1", self._to))
        with caller, vendor, ThreadPoolExecutor(2) as ways:
            ways.submit(self._pass, caller, vendor)
            ways.submit(self._pass, vendor, caller)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while content := source.recv(65_536):
                while self.silent:
                    time.sleep(0.05)
                sink.sendall(content)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


def test_another_model_than_the_teacher_is_refused(
    taught: Path, tmp_path: Path, key: str, vendor_process: VendorProcess
) -> None:
    file = onnx.load(taught)
    for each in file.metadata_props:
        each.value = "fp_other" if each.key == "taught_by" else each.value
    onnx.save(file, tmp_path / "other.onnx")
    asked = ("--ask-vendor", vendor_process.url, "--ask-budget", "5")
    kept = ("--api-key-file", str(tmp_path / "key"), "--cache", str(tmp_path / "cache.db"))
    with (
        pytest.raises(AssertionError, match="learnt from the model fp_other"),
        StudentProcess(tmp_path / "other.onnx", tmp_path, *asked, *kept),
    ):
        pass
    assert vendor_process.charges(key).queries == 0


def test_no_caller_waits_for_the_vendor_as_long_as_a_request_may_take_or_a_server_that_stops(
    tmp_path: Path,
) -> None:
    assert ServeOptions(ask_seconds=25).ask_seconds < min(app._SECONDS / 2, server._DRAIN_SECONDS)
    with pytest.raises(ValidationError, match="ask_seconds"):
        ServeOptions(ask_seconds=25.1)
    ended, words = refused_start("student.onnx", "--ask-seconds", "25.1", folder=tmp_path)
    assert ended == 2
    assert "less than or equal to 25" in words


def test_a_server_that_asks_has_a_budget(taught: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="--ask-budget"),
        StudentProcess(taught, tmp_path, "--ask-vendor", "http://127.0.0.1:9"),
    ):
        pass
    with pytest.raises(ValidationError, match="--ask-budget"):
        ServeOptions(ask=AskOptions(share=0.1))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--ask-vendor", "nowhere"), 2, "There is no teacher 'nowhere'"),
        (("--api-key-file", "typo"), 2, "The API key cannot be read from typo"),
        (("--cache", "file/cache.db"), 1, "The cache folder file cannot be made"),
    ],
)
def test_a_vendor_that_can_never_be_asked_is_refused(
    taught: Path, tmp_path: Path, options: tuple[str, str], code: int, said: str
) -> None:
    (tmp_path / "file").touch()
    asks = ("--ask-vendor", "http://127.0.0.1:9", "--ask-budget", "5", *options)
    ended, words = refused_start(str(taught), "--port", "0", *asks, folder=tmp_path)
    assert said in words
    assert ended == code


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 400])
def test_the_page_shows_who_answered_and_what_is_left(
    serve: Serve,
    browser: Browser,
    width: int,
    tmp_path: Path,
) -> None:
    with serve("--ask-share", "1", "--ask-budget", "50", "--ask-seconds", "25") as http:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(str(http.base_url))
        expect(page.locator(".lead")).to_contain_text("may be sent on to the vendor that taught it")
        expect(page.locator("#answered")).to_contain_text("50 of 50 queries are left this month")
        files: list[FilePayload] = [
            {"name": f"{n}.png", "mimeType": "image/png", "buffer": picture(n)} for n in range(2)
        ]
        page.locator("#files").set_input_files(files)
        expect(page.locator("#answers > li")).to_have_count(2)
        expect(page.locator(".who").first).to_have_text(re.compile("^answered by student and vendor in"))
        expect(page.locator("#answered")).to_contain_text(f"{50 - _TEXTS - 2} of 50 queries are left")
        expect(page.locator("figure svg")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"deferral-{width}.png", full_page=True)
        page.close()


class _Unsure:
    """A student that is never sure."""

    async def answer(self, account: str, images: Sequence[ImageFile], on_error: OnError) -> Sequence[Answer]:
        return [Answer(np.array([0.5, 0.5], np.float32), "student") for _ in images]


class _SilentQueue(AskQueue):
    """Notes what it is asked about, and answers nothing."""

    def __init__(self, room: int = 2**20) -> None:
        self.asked: list[Query] = []
        self._free = room

    def room(self, account: str) -> int:
        return self._free

    async def ask(self, queries: Sequence[Query], *, account: str, seconds: float) -> list[Answer | None]:
        self.asked += queries
        return [None] * len(queries)


def test_the_name_that_a_caller_gives_an_image_is_no_path() -> None:
    """What is noted under a name is later looked for in the file of that name."""
    queue = _SilentQueue()
    _answer(queue, [ImageFile(picture(), "/dev/zero")])
    assert [query.name for query in queue.asked] == ["an image"]


async def _as_it_is(account: str, file: bytes | str) -> bytes:
    assert isinstance(file, bytes)
    return file


def _answer(
    queue: AskQueue, *requests: list[ImageFile], as_sent: AsSent = _as_it_is, seconds: float = 20
) -> None:
    """Have some requests answered at once."""
    streams = CallersStreams(lambda: ShareOfTraffic(1.0))
    answerer = DeferringAnswerer(_Unsure(), streams, queue, lambda _: True, as_sent, seconds=seconds)

    async def answer_all() -> None:
        for answers in await asyncio.gather(*(answerer.answer("", each, "fail") for each in requests)):
            assert {each.answered_by for each in answers if isinstance(each, Answer)} == {"student"}

    with ThreadPoolExecutor(1) as pool:  # in this thread, a browser may have a loop of its own
        pool.submit(lambda: asyncio.run(answer_all())).result()


class _Maker:
    """Makes what is sent slowly, and counts how much."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.made = 0

    async def as_sent(self, account: str, file: bytes | str) -> bytes:
        await asyncio.sleep(self._seconds)
        self.made += 1
        return await _as_it_is(account, file)


def test_what_is_sent_is_not_made_beyond_the_room_that_there_is() -> None:
    queue, maker = _SilentQueue(room=10), _Maker(0.01)
    _answer(queue, *([ImageFile(bytes(5))] * 3 for _ in range(4)), as_sent=maker.as_sent)
    assert (maker.made, len(queue.asked)) == (4 * 2, 4 * 2)
    _answer(_SilentQueue(room=0), [ImageFile(bytes(5))], as_sent=maker.as_sent)
    assert maker.made == 4 * 2


def test_what_is_sent_is_made_in_the_time_that_a_caller_waits() -> None:
    queue, maker = _SilentQueue(), _Maker(0.1)
    _answer(queue, [ImageFile(b"late")], as_sent=maker.as_sent, seconds=0.05)
    assert not queue.asked
    _answer(queue, [ImageFile(b"early")] * 40, as_sent=maker.as_sent, seconds=2)  # which would take four
    assert 0 < len(queue.asked) <= maker.made < 20


def test_without_a_vendor_nothing_is_said_of_one(http: httpx.Client) -> None:
    told = http.get("/v1/deferral").json()
    assert (told["asks"], told["budget"]) == (False, None)
    assert json.loads(ask(http, picture()).text)["cost_micros"] == 0
