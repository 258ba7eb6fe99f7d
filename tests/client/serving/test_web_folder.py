"""`client export --web` in a real browser: the page answers as `client predict` does, and asks nobody."""

import base64
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from playwright.sync_api import Browser, FilePayload, Page, expect

import client
from client.cli.main import main
from client.data.images import decode_square
from client.errors import ClientError, UsageError
from client.results.predictions import LabelledPrediction, predictions_as_csv
from client.runs.folder import RunFolder
from client.runs.pages import samples_of
from client.serving import web_folder
from client.serving.rendering import read_asset
from examples.bundle_onnxruntime_web import FILES_SHA256, FROM_NPM, FROM_PYTHON, PACKAGE
from tests.client.serving.conftest import SIDE
from tests.client.serving.test_page import WIDTHS, choose, drop, watched
from tests.client.serving.test_serve import picture
from tests.client.toy import CLASSES
from tests.support.static_server import static_server

# Before Pillow 13 the height of a tall image was never the first to be squeezed.
_ROUNDING = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1
_FILE = "const file = new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], 'picture');"
_PIXELS = f"""async ([content, side]) => {{
  {_FILE}
  const {{ decodeSquare }} = await import(new URL("assets/pixels.js", document.baseURI).href);
  return [...await decodeSquare(file, side)];
}}"""
# What the page says of the base64 of a file.
ANSWER = f"""async (content) => {{
  {_FILE}
  const {{ classify }} = await import(new URL("assets/browser.js", document.baseURI).href);
  return await classify([file]);
}}"""


@pytest.fixture(scope="session")
def site(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder, somewhere below what a server of static files serves; and its address."""
    root = tmp_path_factory.mktemp("static")
    folder = root / "some where" / "icons"
    folder.parent.mkdir()
    client.export(run / "student.onnx", folder, kind="web")
    with static_server(root) as address:
        yield folder, f"{address}some%20where/icons/"


@pytest.fixture(scope="module")
def page(browser: Browser, site: tuple[Path, str]) -> Iterator[Page]:
    """The page, which may ask for nothing outside its folder, and is ready."""
    with watched(browser, site[1]) as page:
        expect(page.locator("#status")).to_have_text("Ready.")
        yield page


def _drawing(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise over gradients, so that no two rows, columns or channels are alike; alpha as well."""
    rng = np.random.default_rng(width + height)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    across = np.linspace(0, 255, width)[None, :, None] * np.linspace(1, 0.3, channels)
    down = np.linspace(0, 1, height)[:, None, None]
    values = across * down + rng.integers(0, 80, (height, width, channels))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)[..., 0 if channels == 1 else slice(None)])


def _deep() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 2**16, (50, 50), dtype=np.uint16)


def _saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(_drawing(90, 60), exif=exif)


def _with_profile() -> bytes:
    """With a colour profile in which red and blue have changed places, which Pillow leaves alone."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"----", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"----", b"bXYZ", 1)
    return _saved(_drawing(50, 50), icc_profile=profile)


def _with_gamma() -> bytes:
    chunk = b"gAMA" + (100_000).to_bytes(4, "big")
    chunk = (4).to_bytes(4, "big") + chunk + crc32(chunk).to_bytes(4, "big")
    content = _saved(_drawing(50, 50))
    return content[:33] + chunk + content[33:]  # after the first chunk, which tells the size


EXACT: dict[str, Callable[[], bytes]] = {
    "smaller": lambda: _saved(_drawing(20, 13)),
    "as it is": lambda: _saved(_drawing(SIDE, SIDE)),
    "wide": lambda: _saved(_drawing(97, 41)),
    "tall": lambda: _saved(_drawing(SIDE, 300)),
    "reduced": lambda: _saved(_drawing(230, 331)),
    "reduced by a power of two": lambda: _saved(_drawing(400, 200)),
    "in several bands": lambda: _saved(_drawing(300, 2500)),
    "reduced to a part of a pixel": lambda: _saved(_drawing(496, SIDE)),
    "one pixel": lambda: _saved(_drawing(1, 1)),
    "upright": lambda: _saved(_drawing(60, 90)),
    "a line": lambda: _saved(_drawing(1000, 1)),
    "grey": lambda: _saved(_drawing(70, 70, "L")),
    "palette": lambda: _saved(_drawing(70, 70).quantize(50)),
    "gif": lambda: _saved(_drawing(70, 70).quantize(50), "GIF"),
    "bmp": lambda: _saved(_drawing(70, 70), "BMP"),
    "webp": lambda: _saved(_drawing(70, 70), "WEBP", lossless=True),
    "16 bits": lambda: _saved(Image.fromarray(_deep())),
    "colour profile": _with_profile,
    "gamma": _with_gamma,
    **{f"turned {number}": partial(_turned, number) for number in range(1, 9)},
}
NEAR: dict[str, tuple[Callable[[], bytes], float]] = {
    "translucent": (lambda: _saved(_drawing(70, 70, "RGBA")), 1),
    "translucent grey": (lambda: _saved(_drawing(70, 70, "LA")), 1),
    "jpeg": (lambda: _saved(_drawing(60, 60), "JPEG", quality=95), 2),
    "large jpeg": (lambda: _saved(_drawing(900, 700), "JPEG", quality=95), 8),
}


def _answer(page: Page, content: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = page.evaluate(ANSWER, base64.b64encode(content).decode())
    return answer


def _pixels(page: Page, content: bytes, side: int) -> NDArray[np.int_]:
    found = page.evaluate(_PIXELS, [base64.b64encode(content).decode(), side])
    return np.array(found).reshape(side, side, 3)


@pytest.mark.parametrize("name", EXACT)
def test_a_student_sees_the_pixels_that_pillow_makes(page: Page, name: str) -> None:
    content = EXACT[name]()
    difference = _pixels(page, content, SIDE) - decode_square(content, SIDE)[0].astype(int)
    assert np.abs(difference).max() <= _ROUNDING


@pytest.mark.parametrize("name", NEAR)
def test_where_decoders_round_otherwise_it_sees_nearly_the_same(page: Page, name: str) -> None:
    make, most = NEAR[name]
    content = make()
    difference = _pixels(page, content, SIDE) - decode_square(content, SIDE)[0].astype(int)
    assert np.abs(difference).max() <= most
    assert np.abs(difference).mean() <= 0.3


# Of what it sees as it should, two files stand for all in the ordinary tests.
@pytest.mark.parametrize(
    "name",
    [
        *("upright", "jpeg"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (*EXACT, *NEAR)
            if name not in ("upright", "jpeg")
        ),
    ],
)
def test_its_answers_are_those_of_client_predict(page: Page, run: Path, tmp_path: Path, name: str) -> None:
    make, tolerance = NEAR.get(name, (EXACT.get(name), 0))
    assert make is not None
    file = tmp_path / "file"
    file.write_bytes(make())
    found = client.load_student(run / "student.onnx").predict(file)
    (expected,) = found.classes.values()
    answer = _answer(page, file.read_bytes())
    assert answer["errors"] == []
    (result,) = answer["results"]
    assert (result["class"], result["answered_by"]) == (next(iter(expected)), "student")
    said = {each["class"]: each["confidence"] for each in result["top"]}
    assert said == pytest.approx(expected, abs=1e-2 if tolerance > 1 else 1e-3)


@pytest.mark.parametrize("width", WIDTHS)
def test_chosen_and_dropped_images_are_answered(
    browser: Browser, site: tuple[Path, str], run: Path, width: int, tmp_path: Path
) -> None:
    with watched(browser, site[1], touched=width < 600) as page:
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.locator("#ask")).to_be_visible()
        choose(page, *[(f"{name}.png", picture(number)) for number, name in enumerate(CLASSES)])
        expect(page.locator("#answers > li")).to_have_count(3)
        expect(page.locator("#status")).to_have_text(re.compile(r"^3 images in \d+ ms\.$"))
        drop(page, b"no picture", "broken.png")
        expect(page.locator("li.refused .class")).to_have_text("not a picture that this browser can read")
        expect(page.locator("#camera")).to_be_visible(visible=width < 600)
        taken = FilePayload(name="taken.jpg", mimeType="image/jpeg", buffer=picture(5, "JPEG"))
        page.locator("#camera").set_input_files(taken)
        expect(page.locator("#answers .name").first).to_have_text("taken.jpg")
        for card, number in zip(page.locator("#answers > li").all()[2:], (0, 1, 2), strict=True):
            file = tmp_path / "file.png"
            file.write_bytes(picture(number))
            (said,) = client.load_student(run / "student.onnx").predict(file).classes.values()
            best, confidence = next(iter(said.items()))
            expect(card.locator(".class")).to_have_text(f"{best}, {100 * confidence:.1f}%")
            expect(card.locator(".who")).to_have_text(re.compile(r"^answered by the student in \d+\sms$"))
            expect(card.locator(".top li")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"{width}.png", full_page=True)


def test_too_large_files_are_refused(page: Page) -> None:
    assert _answer(page, _saved(Image.new("1", (8000, 7000))))["errors"] == [
        {"index": 0, "message": "8000 x 7000 pixels are too many"}
    ]
    found = page.evaluate(
        """async () => {
          const { classify } = await import(new URL("assets/browser.js", document.baseURI).href);
          return await classify([new File([new Uint8Array(64 * 2 ** 20 + 1)], "large.png")]);
        }"""
    )
    assert found["errors"] == [{"index": 0, "message": "larger than 64 MiB"}]


def test_what_may_be_loaded_is_strict(page: Page, site: tuple[Path, str]) -> None:
    html = (site[0] / "index.html").read_text(encoding="utf-8")
    content = page.locator("meta[http-equiv=content-security-policy]").get_attribute("content")
    policy = dict(part.strip().split(" ", 1) for part in (content or "").split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<script>|<style|style=|onclick=", html)
    assert html.index("content-security-policy") < html.index("<link")


def test_the_folder_is_whole_and_nothing_in_it_leads_elsewhere(site: tuple[Path, str], run: Path) -> None:
    folder, _ = site
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == web_folder._NAMES - {*web_folder._SAMPLES}
    assert (folder / "student.onnx").read_bytes() == (run / "student.onnx").read_bytes()
    facts = json.loads((folder / "student.json").read_text())
    assert (facts["name"], facts["classes"], facts["image_size"]) == ("student", list(CLASSES), SIDE)
    for path in re.findall(r'(?:src|href)="([^"]*)"', (folder / "index.html").read_text()):
        assert (folder / path).is_file(), path
    assert "MIT License" in (folder / "onnxruntime" / "LICENSE.txt").read_text()


def test_a_page_whose_student_is_gone_says_so_and_the_browser_holds_it_to_its_policy(
    browser: Browser, run: Path, tmp_path: Path
) -> None:
    client.export(run / "student.onnx", tmp_path / "web", kind="web")
    (tmp_path / "web" / "student.onnx").unlink()
    with static_server(tmp_path) as address:
        page = browser.new_page()
        page.goto(f"{address}web/")
        expect(page.locator("#status.problem")).to_have_text(
            "The student cannot be run here: student.onnx is not there (404)"
        )
        expect(page.locator("#ask")).to_be_hidden()
        asked = page.evaluate("fetch('https://example.org/').then(() => 'asked', () => 'refused')")
        assert asked == "refused"
        page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "document.title = 'run'";
              document.head.append(script);
            }"""
        )
        assert page.title() != "run"
        page.goto((tmp_path / "web" / "index.html").as_uri())
        expect(page.locator("#status")).to_contain_text("python3 -m http.server")
        page.close()


def _export(student: Path, out: Path) -> None:
    client.export(student, out, kind="web")


def test_a_page_is_replaced_whole(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "web"
    out.mkdir()
    _export(run / "student.onnx", out)
    (out / "assets" / "page.js").unlink()
    (out / "index.html").write_text("old")
    _export(run / "student.onnx", out)
    assert (out / "assets" / "page.js").is_file()
    assert (out / "index.html").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


@pytest.mark.parametrize("foreign", ["index.html", "notes/todo.txt", "web/../link"])
def test_what_was_not_written_here_stays(run: Path, tmp_path: Path, foreign: str) -> None:
    out = tmp_path / "web"
    if foreign == "index.html":
        out.mkdir()
        (out / foreign).write_text("a page of somebody else")
    elif foreign == "notes/todo.txt":
        _export(run / "student.onnx", out)
        (out / "notes").mkdir()
        (out / foreign).write_text("write a page")
    else:
        (tmp_path / "there").mkdir()
        out.symlink_to(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=f"{foreign}|is not a folder"):
        _export(run / "student.onnx", out)
    assert sorted(tmp_path.rglob("*")) == before


def test_where_no_page_can_be_made_nothing_is_left(run: Path, tmp_path: Path) -> None:
    damaged, file = tmp_path / "damaged.onnx", tmp_path / "file"
    damaged.write_bytes(b"no student")
    file.write_text("a file")
    for student, out, words in (
        (damaged, tmp_path / "web", "is damaged or is not a student"),
        (tmp_path / "missing.onnx", tmp_path / "web", r"missing\.onnx does not exist"),
        (run / "student.onnx", tmp_path / "no" / "web", "there is no folder"),
        (run / "student.onnx", file, "is not a folder"),
        (run / "student.onnx", tmp_path / ("x" * 300), "cannot be written: File name too long"),
    ):
        with pytest.raises(ClientError, match=words):
            _export(student, out)
    assert {path.name for path in tmp_path.iterdir()} == {"damaged.onnx", "file"}


def test_a_full_disk_is_said_and_what_was_there_stays(run: Path, small_disk: Path) -> None:
    with pytest.raises(ClientError, match=r"web cannot be written: the disk is full"):
        _export(run / "student.onnx", small_disk / "web")
    assert not list(small_disk.iterdir())


def test_the_command_takes_a_file_or_a_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, out = str(run / "student.onnx"), str(tmp_path / "web")
    for words in ((), ("--out", "x.onnx", "--web", out), ("--web", out, "--format", "onnx")):
        with pytest.raises(SystemExit) as end:
            main(["export", student, *words])
        assert end.value.code == 2
        assert "--out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["export", student, "--web", out, "--json"])
    assert not end.value.code
    assert json.loads(capsys.readouterr().out) == {"out": out, "format": "web"}


@pytest.mark.slow
def test_the_bundle_is_what_the_program_makes_of_the_package() -> None:
    with zipfile.ZipFile(BytesIO(read_asset("onnxruntime-web.zip"))) as bundle:
        assert set(bundle.namelist()) == {*FROM_NPM, *FROM_PYTHON}
        version = PACKAGE.split("@")[1]
        assert f"ONNX Runtime Web v{version}".encode() in bundle.read("ort.js")
        assert {name: sha256(bundle.read(name)).hexdigest() for name in FROM_NPM} == FILES_SHA256


def test_samples_are_images_that_a_run_was_tested_on_a_class_in_turn(
    browser: Browser, run: Path, tmp_path: Path
) -> None:
    data, answers = tmp_path / "data", tmp_path / "answers.csv"
    data.mkdir()
    said = []
    for number, name in enumerate([CLASSES[0], CLASSES[0], CLASSES[1]]):
        (data / f"{number}.png").write_bytes(picture(number))
        said.append(LabelledPrediction(f"{number}.png", "red", False, name, name, 0.9))
    gone = LabelledPrediction("gone.png", "red", False, CLASSES[2], CLASSES[2], 0.9)
    answers.write_text(predictions_as_csv([*said, gone]))
    known = SimpleNamespace(read_config=lambda: SimpleNamespace(data=data), answers=answers)
    found = samples_of(cast(RunFolder, known), 2)
    assert [Image.open(BytesIO(each)).size for each in found] == [(224, 224), (224, 224)]
    folder = tmp_path / "page"
    with web_folder.replacing(folder) as made:
        (made / "student.onnx").write_bytes((run / "student.onnx").read_bytes())
        web_folder.fill(made, "shapes", samples=found)
    with static_server(folder) as address, watched(browser, address) as page:
        expect(page.locator("#status")).to_have_text("Ready.")
        page.get_by_role("button", name="picture 2").click()
        expect(page.locator("#answers > li .name")).to_have_text("picture 2")
    with pytest.raises(UsageError, match="--samples takes a run's directory"):
        client.export(run / "student.onnx", tmp_path / "none", kind="web", samples=1)
    with pytest.raises(SystemExit):
        main(["export", str(run), "--out", str(tmp_path / "a.onnx"), "--samples", "1"])
