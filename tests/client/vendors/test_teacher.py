"""Teachers by name and made in Python: what they are given, what they answer, and what is wrong with them."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

import client
from client.api.embedding import embed
from client.cache.cache import EmbeddingCache
from client.errors import ClientError, UsageError, VendorError
from client.options.vendor import EmbedOptions, VendorOptions
from client.runs import teacher_purchase
from client.runs.embedding import run_id_of
from client.vendors.query import Query, Spending
from client.vendors.teacher import Teacher, teacher_names
from tests.client.toy import make_folder, tiny_student
from tests.client.vendors.servers import ApiServer, Asked
from tests.support.brief import briefly

__all__ = ["briefly"]  # a fixture

GUIDE = """
from client import Teacher

def make_teacher(model):
    def images(pictures):
        return [[each.getpixel((0, 0))[0] + 1, len(model), 1] for each in pictures]

    def texts(words):
        return [[len(each), 1, 1] for each in words]

    return Teacher.from_callable(images, texts, name=f"mine-{model}")
"""

_WRONG = """
def wrong():
    return 5

def fails(model):
    raise RuntimeError("no key")
"""


def _images(pictures: Sequence[Image.Image]) -> Any:
    return np.array([[1.0, *each.getpixel((0, 0))] for each in pictures])  # type: ignore[misc]


def _texts(words: Sequence[str]) -> Any:
    return [[float(len(word)), 1, 2, 3] for word in words]


def _options(folder: Path, teacher: Any, **more: Any) -> EmbedOptions:
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (5, 4), colour).save(folder / f"{colour}.png")
    images = (str(folder / "*.png"),)
    return EmbedOptions(teacher=teacher, cache=folder / "cache.db", images=images, texts=("a cat",), **more)


def test_two_functions_are_a_teacher_and_are_asked_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def images(pictures: list[Image.Image]) -> Any:
        calls.append(len(pictures))
        return _images(pictures)

    teacher = Teacher.from_callable(images, _texts, name="mine")
    first = embed(_options(tmp_path, teacher))
    assert (first.queries_bought, first.cost_micros) == (4, 0)
    assert first.vectors is not None
    assert first.vectors[0] == pytest.approx(np.array([5, 1, 2, 3]) / np.sqrt(39))
    assert first.vectors[1] == pytest.approx(np.array([1, 0, 0, 255]) / np.linalg.norm([1, 255]))
    assert embed(_options(tmp_path, teacher)).queries_bought == 0
    assert calls == [1, 3, 1]  # it is recognised each time by a text and an image
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        assert all(each.startswith("python:mine:") for each in cache.fingerprints())


def test_a_teacher_with_a_price_is_paid_within_its_limits(tmp_path: Path) -> None:
    teacher = Teacher.from_callable(_images, _texts, name="mine", price={"image": 100, "text": 7})
    assert embed(_options(tmp_path, teacher, budget=10)).cost_micros == 307
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        assert cache.spending("canary") == Spending(2, 107)


def test_a_fingerprint_of_ones_own_tells_models_apart(tmp_path: Path) -> None:
    for version in ("1", "2"):
        teacher = Teacher.from_callable(_images, _texts, name="mine", fingerprint=version)
        assert embed(_options(tmp_path, teacher)).queries_bought == 4
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        assert sorted(cache.fingerprints()) == ["python:mine:1", "python:mine:2"]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (lambda pictures: np.ones((1 + len(pictures), 4)), "answered 2 of 1 queries"),
        (
            lambda _: np.ones((1, 3)),
            "The teacher in this process answered about a text with 4 dimensions and about an image with 3",
        ),
        (lambda _: np.zeros((1, 4)), "a vector of zeros"),
        (lambda _: np.full((1, 4), np.inf), "not finite"),
        (lambda _: None, "NoneType, and not with rows"),
        (
            lambda _: ["no numbers"],
            "process (mine) answered with a row that is no vector",
        ),
        (lambda _: np.ones(4), "shape (4,) in place of (1, dimensions)"),
        (lambda _: np.ones((1, 2, 2)), "shape (1, 2, 2) in place of (1, dimensions)"),
        (lambda _: [[[1.0]]], "shape (1, 1) in place of a vector"),
        (lambda _: 1 / 0, "raised ZeroDivisionError"),
    ],
    ids=["rows", "width", "zeros", "infinite", "nothing", "words", "flat", "deep", "nested", "error"],
)
def test_a_function_that_answers_wrongly_is_named(
    tmp_path: Path, images: Callable[[Any], Any], said: str
) -> None:
    teacher = Teacher.from_callable(images, _texts, name="mine")
    with pytest.raises(VendorError) as caught:
        embed(_options(tmp_path, teacher))
    assert said in str(caught.value)
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        assert not cache.fingerprints()


def test_a_width_that_changes_midway_ends_the_purchase_and_keeps_what_was_bought(tmp_path: Path) -> None:
    width = [4]
    teacher = Teacher.from_callable(
        _images, lambda words: np.ones((len(words), width[0])) + np.eye(len(words), width[0]), name="mine"
    )
    assert embed(_options(tmp_path, teacher)).queries_bought == 4

    def later(words: list[str]) -> Any:
        return np.ones((len(words), 4 if "canary" in words[0] else 6))

    other = Teacher.from_callable(_images, later, name="mine", fingerprint="1")
    with pytest.raises(ClientError, match="6 dimensions, not 4"):
        embed(_options(tmp_path, other))


def test_a_function_that_costs_and_fails_leaves_one_call_in_doubt(tmp_path: Path) -> None:
    calls: list[int] = []

    def texts(words: list[str]) -> Any:
        calls.append(len(words))
        if len(calls) == 3:  # after that of the canary, and a first batch
            raise RuntimeError("the upstream API said no")
        return np.ones((len(words), 4)) + np.arange(4)

    teacher = Teacher.from_callable(_images, texts, name="mine", price={"image": 100, "text": 7})
    asked = tuple(f"a {number}" for number in range(600))
    options = EmbedOptions(teacher=teacher, cache=tmp_path / "cache.db", texts=asked, budget=900)
    with pytest.raises(VendorError, match="raised RuntimeError: the upstream API said no"):
        embed(options)
    first = calls[1]
    assert len(calls) == 3  # no other call was under way
    again = embed(options)
    assert (again.queries_bought, again.cost_micros) == (600 - first, 7 * (600 - first))
    assert sum(calls[4:]) == 600 - first  # what was answered is not asked again
    run = run_id_of([Query.text(each) for each in asked])
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        assert cache.spending(run) == Spending(600 + calls[2], 7 * (600 + calls[2]))  # one call in doubt


def test_a_batch_for_which_there_is_no_memory_is_halved(tmp_path: Path) -> None:
    class OutOfMemoryError(RuntimeError):
        """As PyTorch calls that of a GPU."""

    def images(pictures: list[Image.Image]) -> Any:
        if len(pictures) > 1:
            raise OutOfMemoryError("CUDA out of memory")
        return _images(pictures)

    assert embed(_options(tmp_path, Teacher.from_callable(images, _texts, name="mine"))).queries_bought == 4

    def never(_: list[Image.Image]) -> Any:
        raise MemoryError

    with pytest.raises(VendorError, match="raised MemoryError"):
        embed(_options(tmp_path, Teacher.from_callable(never, _texts, name="other")))


def test_what_was_interrupted_is_computed_again_for_nothing(tmp_path: Path) -> None:
    fails = [True]

    def images(pictures: list[Image.Image]) -> Any:
        if len(pictures) > 1 and fails:
            fails.clear()
            raise KeyboardInterrupt
        return _images(pictures)

    teacher = Teacher.from_callable(images, _texts, name="mine")
    with pytest.raises(KeyboardInterrupt):
        embed(_options(tmp_path, teacher, budget=4))
    found = embed(_options(tmp_path, teacher, budget=4))
    assert found.vectors is not None
    assert np.isfinite(found.vectors).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("telepathy", "There is no teacher 'telepathy'"),
        ("cohre", "is cohere meant?"),
        ("python:my_module", "write python:MODULE:NAME"),
        ("../tuition", "There is no teacher"),
    ],
)
def test_a_name_of_nobody_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Teacher(name)
    assert said in str(caught.value)
    with pytest.raises(ValueError, match="teacher"):
        VendorOptions(teacher=name)


@pytest.mark.parametrize("price", ["image=1", "image=1,text=x", "image=1,words=2", "5"])
def test_a_price_is_whole_micros_of_both_kinds(price: str) -> None:
    with pytest.raises(ValueError, match="image=100,text=5"):
        VendorOptions(teacher="cohere", price=tuple(price.split(",")))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed a package that offers teachers, some of them none."""
    home = tmp_path_factory.mktemp("acme")
    folder = home / "site"
    info = "acme_teacher-1.0.dist-info"
    files = {
        "acme_teacher.py": f"{GUIDE}\n{_WRONG}",
        "acme_raises.py": "raise RuntimeError('no licence')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: acme-teacher\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[tuition.teachers]\nacme = acme_teacher:make_teacher\n"
        "broken = acme_teacher:nothing\nwrong = acme_teacher:wrong\nraises = acme_raises:make_teacher\n",
    }
    wheel = home / "acme_teacher-1.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": "".join(f"{name},,\n" for name in files)}.items():
            archive.writestr(name, text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--disable-pip-version-check", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def package(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same on the path of Python."""
    monkeypatch.syspath_prepend(str(installed))
    for name in ("acme_teacher", "acme_raises"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return installed


def test_a_package_adds_a_teacher_by_its_entry_point(tmp_path: Path, package: Path) -> None:
    assert "acme" in teacher_names()
    found = embed(_options(tmp_path, "acme:xl"))
    assert found.queries_bought == 4
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        assert all(each.startswith("python:mine-xl:") for each in cache.fingerprints())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "cannot be loaded: AttributeError"),
        ("raises", "cannot be loaded: RuntimeError: no licence"),
        ("wrong", "made int: it has to be"),
        ("python:nowhere:make", "cannot be loaded: ModuleNotFoundError"),
        ("python:acme_teacher:fails", "raised RuntimeError: no key"),
    ],
)
def test_an_entry_point_that_is_none_is_named(tmp_path: Path, package: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        embed(_options(tmp_path, name))
    assert said in str(caught.value)


def test_a_module_of_the_working_directory_is_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_teacher.py").write_text(GUIDE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert embed(_options(tmp_path, "python:my_own_teacher:make_teacher:small")).queries_bought == 4


def test_the_guide_of_the_documents_is_a_teacher_and_an_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "cache.db"))
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs" / "buying.md"
    guide = page.read_text().partition("### A teacher of your own")[2]
    callables, api = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)[:2]
    names: dict[str, Any] = {}
    exec(callables, names)
    assert names["embeddings"].queries_bought == 1
    assert embed(_options(tmp_path, names["make_teacher"]())).vectors is not None
    exec(api, names)

    def answer(server: ApiServer, asked: Asked) -> Any:
        (inputs,) = (value for name, value in asked.json.items() if name != "model")
        return {"vectors": [server.vector(each) for each in inputs]}

    with names["Acme"]("http://acme", "key", transport=ApiServer(answer)) as vendor:
        query = Query.text("a cat")
        found = vendor.embed([(query, query.content())], model=vendor.model(), idempotency_key="1")
        assert (len(found.vectors), found.usage.cost_micros) == (1, 5)


def test_texts_and_images_of_two_spaces_are_said_before_much_is_bought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(teacher_purchase, "_FIRST_LOOK", 30)
    bought = []

    def images(pictures: list[Image.Image]) -> Any:
        bought.append(len(pictures))
        return [np.random.default_rng(len(each.tobytes()) + len(bought)).normal(size=8) for each in pictures]

    def texts(words: list[str]) -> Any:
        return np.eye(8)[[len(word) % 8 for word in words]]

    make_folder(tmp_path / "toy", images=6)
    tiny_student(tmp_path)
    options = client.DistillOptions(
        data=tmp_path / "toy",
        out=tmp_path / "run",
        cache=tmp_path / "cache.db",
        teacher=Teacher.from_callable(images, texts, name="two spaces"),
        student="test_efficientnet",
        student_weights=tmp_path / "backbone.safetensors",
        image_size=32,
        steps=1,
        budget=500,
    )
    client.distill(options, progress=client.Display())
    assert "no better than guessing among 3 classes" in " ".join(capsys.readouterr().err.split())


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.vendors.declaration.find_spec", lambda _: None)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'tuition\[bedrock\]'"):
        embed(_options(tmp_path, "bedrock"))


def test_an_api_is_not_asked_without_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"takes a key: set COHERE_API_KEY, or .* --api-key-file"):
        embed(_options(tmp_path, "cohere"))


def test_tuitions_key_and_address_are_for_tuition_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUITION_VENDOR_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TUITION_API_KEY", "tk_id_secret")
    options = VendorOptions(teacher="cohere")
    assert (options.address, options.said_key()) == (None, (None, None))
    assert VendorOptions(teacher="cohere", vendor="http://proxy").address == "http://proxy"
    own = VendorOptions()
    assert (own.address, own.said_key()[0] is not None) == ("http://127.0.0.1:9", True)


def test_an_address_of_the_environment_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="GOOGLE_CLOUD_LOCATION and GOOGLE_CLOUD_PROJECT"):
        embed(_options(tmp_path, "vertex"))
    with pytest.raises(UsageError, match="say with --vendor"):
        embed(_options(tmp_path, "openai:clip"))
