"""`--reject`: images of no class are told apart alike in folders, over HTTP and in the browser."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from playwright.sync_api import Browser, Page, expect
from pydantic import ValidationError

import client
from client.cli.main import main
from client.learning.rejection import sureness
from client.learning.student_metadata import StudentMetadata
from tests.client.serving.test_page import choose, watched
from tests.client.serving.test_serve import ask, picture, refused_start
from tests.client.serving.test_web_folder import ANSWER
from tests.client.toy import CLASSES
from tests.support.static_server import static_server
from tests.support.student_process import StudentProcess

_COUNT = 8
_RATE = 0.5


@pytest.fixture(scope="module")
def rejecting(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudentProcess]:
    with StudentProcess(run, tmp_path_factory.mktemp("rejecting"), "--reject", str(_RATE)) as process:
        yield process


@pytest.fixture(scope="module")
def predicted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> client.Predictions:
    """What `client predict` says of `picture(0)` and so on; some of them show no class."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(_COUNT):
        (folder / f"{seed}.png").write_bytes(picture(seed))
    found = client.load_student(run / "student.onnx").predict(folder, reject=_RATE)
    assert 0 < list(found.named.values()).count(None) < _COUNT
    return found


def test_a_folder_is_answered_by_the_threshold_in_the_file(predicted: client.Predictions, run: Path) -> None:
    facts = client.load_student(run / "student.onnx")
    below = StudentMetadata.from_file(facts.metadata).thresholds(_RATE, asks=False).student
    for image, classes in predicted.classes.items():
        (sure,) = sureness(np.array([[*classes.values()]]))
        assert predicted.named[image] == (None if sure < below else next(iter(classes)))
        assert len(classes) == len(CLASSES)
    rows = {row["image"]: row for row in predicted.rows()}
    assert {image: row["class"] for image, row in rows.items()} == predicted.named
    assert not facts.predict(list(predicted.classes)).named


def test_callers_get_the_answers_of_a_folder(
    rejecting: StudentProcess, predicted: client.Predictions
) -> None:
    with httpx.Client(base_url=rejecting.url, timeout=60) as http:
        results = ask(http, *map(picture, range(_COUNT))).json()["results"]
        assert [each["class"] for each in results] == list(predicted.named.values())
        for result, classes in zip(results, predicted.classes.values(), strict=True):
            assert [each["class"] for each in result["top"]] == list(classes)
            assert result["confidence"] == result["top"][0]["confidence"]
        rejected = list(predicted.named.values()).count(None)
        assert f"tuition_rejected_images_total {float(rejected)}" in http.get("/metrics").text
        told = http.get("/v1/student").json()["reject"]
        assert told["rate"] == _RATE
        (sure,) = sureness(np.array([[each["confidence"] for each in results[0]["top"]]]))
        assert (sure < told["below"]) == (results[0]["class"] is None)


def test_without_the_option_a_class_is_named_of_every_image(http: httpx.Client) -> None:
    results = ask(http, *map(picture, range(_COUNT))).json()["results"]
    assert all(each["class"] == each["top"][0]["class"] for each in results)
    assert http.get("/v1/student").json()["reject"] is None


def _expect_cards(page: Page, predicted: client.Predictions) -> None:
    choose(page, *[(f"{seed}.png", picture(seed)) for seed in range(_COUNT)])
    expect(page.locator("#answers > li")).to_have_count(_COUNT)
    cards = {card.locator(".name").text_content(): card for card in page.locator("#answers > li").all()}
    for image, named in predicted.named.items():
        card = cards[Path(image).name]
        expect(card.locator(".class")).to_have_text(
            "none of these" if named is None else re.compile(f"^{named}, ")
        )
        expect(card.locator(".top li")).to_have_count(len(CLASSES) - (named is not None))
    expect(page.locator(".facts")).to_contain_text("of about 50% of images like those it learnt from")
    expect(page.locator(".lead")).to_contain_text("or none where it sees none of them")


def test_the_page_of_a_server_shows_it(
    browser: Browser, rejecting: StudentProcess, predicted: client.Predictions
) -> None:
    with watched(browser, rejecting.url) as page:
        _expect_cards(page, predicted)


def test_the_page_in_the_browser_shows_it(
    browser: Browser, run: Path, tmp_path: Path, predicted: client.Predictions
) -> None:
    client.export(run / "student.onnx", tmp_path / "web", kind="web", reject=_RATE)
    with static_server(tmp_path) as address, watched(browser, f"{address}web/") as page:
        expect(page.locator("#status")).to_have_text("Ready.")
        for seed, named in enumerate(predicted.named.values()):
            content = base64.b64encode(picture(seed)).decode()
            (result,) = page.evaluate(ANSWER, content)["results"]
            assert result["class"] == named
        _expect_cards(page, predicted)


@pytest.fixture
def earlier(run: Path, tmp_path: Path) -> Path:
    """The file of a student whose run knew no thresholds."""
    file = onnx.load(run / "student.onnx")
    kept = [each for each in file.metadata_props if each.key != "rejection"]
    del file.metadata_props[:]
    file.metadata_props.extend(kept)
    onnx.save(file, tmp_path / "earlier.onnx")
    (tmp_path / "0.png").write_bytes(picture())
    return tmp_path / "earlier.onnx"


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_file_without_thresholds_answers_as_before_and_rejects_nothing(
    earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "does not tell when an image shows none of its classes"
    image, web = str(tmp_path / "0.png"), tmp_path / "web"
    assert client.load_student(earlier).predict(image).classes
    assert words in _refused(capsys, "predict", str(earlier), image, "--reject", "0.05")
    assert words in refused_start(str(earlier), "--reject", "0.05", folder=tmp_path)[1]
    assert words in _refused(capsys, "export", str(earlier), "--web", str(web), "--reject", "0.05")
    assert not web.exists()


def test_a_rate_that_cannot_be_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, image = run / "student.onnx", tmp_path / "0.png"
    image.write_bytes(picture())
    for typed, words in (("0", "greater than or equal to 0.01"), ("0.6", "less than or equal to 0.5")):
        assert words in _refused(capsys, "predict", str(student), str(image), "--reject", typed)
    said = _refused(capsys, "predict", str(student), str(image), "--reject", "0.01")
    assert "hold-outs were too few for a rate of false rejects below 0.02" in said
    for rate in (0.0, 0.6, float("nan")):
        with pytest.raises(ValidationError, match="reject"):
            client.load_student(student).predict(image, reject=rate)
    said = _refused(capsys, "export", str(student), "--out", str(tmp_path / "s.onnx"), "--reject", "0.05")
    assert "--reject is for --web" in said


def test_a_person_reads_none_of_these_above_the_classes(
    predicted: client.Predictions, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = list(predicted.named)
    with pytest.raises(SystemExit):
        main(["predict", str(run / "student.onnx"), *images, "--reject", str(_RATE)])
    shown = capsys.readouterr().out
    assert shown.count("(none of these)") == list(predicted.named.values()).count(None)
    assert shown.count("tall_bar") == _COUNT
