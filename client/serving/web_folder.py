"""A student as a folder of static files: its page answers in the browser, and asks nobody."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from client.errors import UsageError, unwritable
from client.options.students import MOST_SAMPLES
from client.paths import is_folder
from client.results.rendering import SLIDER
from client.runs.folder import RunFolder
from client.serving.rendering import STYLES, read_asset, render
from client.serving.slider import slider_of, unsure_of
from client.serving.student import StudentFacts, open_student

STUDENT = "student.onnx"
_PAGE, _FACTS = "index.html", "student.json"
_SCRIPT = "browser.js"
_ASSETS = ("icon.svg", *STYLES, "page.js", "pixels.js", SLIDER, _SCRIPT)
_RUNTIME = "onnxruntime-web.zip"
_RUNTIME_FILES = ("LICENSE.txt", "ThirdPartyNotices.txt", "ort.js", "ort.wasm")
# What the page may load: its own files, and pictures that are on it already. It may run WebAssembly.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
_SAMPLES = tuple(f"samples/{number}.jpg" for number in range(1, MOST_SAMPLES + 1))
_NAMES = frozenset(
    {_PAGE, _FACTS, STUDENT, *_SAMPLES}
    | {f"assets/{name}" for name in _ASSETS}
    | {f"onnxruntime/{name}" for name in _RUNTIME_FILES}
)


class WebStudent(StudentFacts):
    """`student.json` of such a folder.

    Attributes:
        stamp: a digest of all that the student learnt from; `None` if its file does not say.
    """

    stamp: str | None


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """An empty folder, which takes the place of `out` if all goes well and is gone otherwise.

    Args:
        out: nothing, an empty folder, or a folder that was written here; what it holds is replaced.

    Raises:
        UsageError: it is or holds something else, or its parent is missing.
        ClientError: it cannot be written.
    """
    out = out.absolute()
    try:
        _check(out)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            made, before = Path(scratch, "made"), Path(scratch, "before")
            made.mkdir()
            yield made
            if out.exists():
                out.rename(before)
            try:
                made.rename(out)
            except OSError:
                if before.exists():
                    before.rename(out)
                raise
    except OSError as error:
        raise unwritable(out, error) from error


def fill(
    folder: Path,
    name: str,
    run: RunFolder | None = None,
    reject: float | None = None,
    samples: Sequence[bytes] = (),
) -> None:
    """Put the page beside the student that lies in the folder as `STUDENT`.

    Args:
        folder: of `replacing`.
        name: of the student, for its page.
        run: where it comes from, which says how often it is right; `None` if that is not known.
        reject: the rate of false rejects at which images are taken to show none of the classes; `None` for
            never.
        samples: JPEG files that the page offers to try it with.

    Raises:
        UsageError: the file has no threshold for the rate.
        ClientError: the file is damaged, or is no student of this version.
    """
    classifier, facts = open_student(folder / STUDENT, name, run, reject)
    student = WebStudent(**facts.model_dump(), stamp=classifier.metadata.stamp)
    html = render(
        "browser.html",
        student=student,
        expected=facts.expected_accuracy,
        asking=slider_of(classifier.metadata, run),
        unsure=unsure_of(classifier.metadata),
        samples=_SAMPLES[: len(samples)],
        script=_SCRIPT,
        policy=_POLICY,
    )
    (folder / _PAGE).write_text(html, encoding="utf-8")
    (folder / _FACTS).write_text(student.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _write(folder / "assets", {asset: read_asset(asset) for asset in _ASSETS})
    for path, content in zip(_SAMPLES, samples, strict=False):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    with zipfile.ZipFile(BytesIO(read_asset(_RUNTIME))) as runtime:
        _write(folder / "onnxruntime", {each: runtime.read(each) for each in _RUNTIME_FILES})


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def _check(out: Path) -> None:
    if not is_folder(out.parent):
        raise UsageError(f"{out}: there is no folder {out.parent}.")
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise UsageError(f"{out} is not a folder. Choose another one.")
    if foreign := _foreign(out):
        raise UsageError(
            f"{out} holds files that are not of a student's page ({foreign}). Choose another folder."
        )


def _foreign(out: Path) -> str | None:
    """A file of a folder that was not written here, if there is one."""
    files = [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(out).as_posix() for path in files}
    if names and _FACTS not in names:
        return min(names)
    return min(names - _NAMES, default=None)
