"""One file of a trained student, or a folder of a page on which it answers."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal

from client.api.students import load_network
from client.errors import ClientError, UsageError
from client.options.students import ExportOptions
from client.paths import absence, is_file, is_folder, resolved
from client.progress import Display, ProgressListener
from client.results.onnx_classifier import require_onnx
from client.results.records import ExportedFile, Name, Record, Summary
from client.runs.folder import RunFolder

Format = Literal["onnx", "safetensors", "web"]


class Exported(Record):
    """A student that was written as one file, or as a page.

    Attributes:
        out: the file, or the page's folder.
        format: "onnx", "safetensors" or "web".
        images: on how many images an ONNX file was compared with PyTorch; `None` where none was.
        max_difference: the largest difference of a probability.
        labels_differ: of how many images the two name different classes, ties aside.
        files: of a file in eight bits: what it costs beside the one in 32.
    """

    out: Name
    format: Format
    images: int | None = None
    max_difference: float | None = None
    labels_differ: int | None = None
    files: list[ExportedFile] | None = None

    def to_json(self) -> dict[str, Any]:
        """Without the comparison where there was none."""
        return self.model_dump(exclude_none=True)


def export(
    student: Path | str,
    out: Path | str,
    *,
    kind: Format | None = None,
    int8: bool = False,
    allow_loss: float = 1.0,
    reject: float | None = None,
    samples: int = 0,
    progress: ProgressListener | None = None,
) -> Exported:
    """Write a student as one file: ONNX, checked against PyTorch, or safetensors; spends nothing.

    Or as a folder of static files, with a page on which it answers in the browser.

    Args:
        student: a run's folder, or a .safetensors file from one; for a page also a .onnx file.
        out: the file to write; or the folder, which is new, empty, or such a page that is to be replaced.
        kind: its format; `None` for what its name ends with, "web" for a page.
        int8: whether to write ONNX in eight bits: a quarter of the size. It takes a run's folder, with the
            images that it learnt from; the report is written again, with what the file costs.
        allow_loss: how many points of accuracy may be lost by it.
        reject: of a page: the rate of false rejects on the hold-outs, from 0.01 to 0.5, at which it takes
            images to show none of the classes; `None` for never.
        samples: of a page of a run: how many images that it was tested on are put onto it, at most 24, for
            people to try; they are published with it.
        progress: is told how the ONNX file compares with PyTorch.

    Raises:
        UsageError: `out` cannot be written, more accuracy is lost, `onnx` is not installed, or the student's
            file has no threshold for the rate of false rejects.
        DataError: the images are gone.
        ClientError: there is no student, or the ONNX file is not what PyTorch computes.
    """
    student, out = Path(student), Path(out)
    options = ExportOptions(int8=int8, allow_loss=allow_loss, reject=reject, samples=samples)
    kind = kind or _format_of(out)
    if student.suffix == ".onnx" and kind != "web":
        raise UsageError(
            f"{student} is ONNX already, and no other format can be made of it. Copy it, or name the run's "
            "directory or its student.safetensors."
        )
    if kind != "safetensors" and student.suffix != ".onnx":
        require_onnx()  # before PyTorch is loaded, which takes seconds
    if not is_folder(out.parent):
        raise UsageError(f"--out {out}: there is no folder {out.parent}.")
    if kind != "web" and is_folder(out):
        raise UsageError(f"--out {out} is a folder: name a file.")
    write: Callable[[Path, Path, Display], Exported]
    write = _as_safetensors if kind == "safetensors" else _as_onnx
    if options.int8:
        write = partial(_as_int8, kind=kind, allow_loss=options.allow_loss)
    elif student.suffix == ".onnx":
        write = _as_it_is
    if kind == "web":
        return _as_page(student, out, write, options, Display.of(progress))
    return write(student, out, Display.of(progress))


def _as_page(
    student: Path,
    out: Path,
    write: Callable[[Path, Path, Display], Exported],
    options: ExportOptions,
    display: Display,
) -> Exported:
    from client.serving.web_folder import STUDENT, fill, replacing

    run = RunFolder(student) if is_folder(student) else None
    if run is None and options.samples:
        raise UsageError(f"--samples takes a run's directory, which knows its images, and not {student}.")
    with replacing(out) as folder:
        written = write(student, folder / STUDENT, display)
        name = student.stem if run is None else resolved(student).name
        samples: list[bytes] = []
        if run is not None and options.samples:
            from client.runs.pages import samples_of  # it takes PyTorch, which a deployed student lacks

            samples = samples_of(run, options.samples)
        fill(folder, name, run, options.reject, samples)
    if run is not None and resolved(run.web) == resolved(out):
        _write_pages(run)
    return written.model_copy(update={"out": str(out), "format": "web"})


def _as_it_is(student: Path, out: Path, _: Display) -> Exported:
    try:
        copyfile(student, out)
    except OSError as error:
        if not is_file(student):
            raise ClientError(f"{student} {absence(student)}.") from error
        raise
    return Exported(out=str(out), format="onnx")


def _as_onnx(student: Path, out: Path, display: Display) -> Exported:
    from client.results.onnx_export import export_onnx

    parity = export_onnx(*load_network(student, "cpu"), out)
    display.note(f"{parity.described}.")
    return Exported(out=str(out), format="onnx", **asdict(parity))


def _as_int8(student: Path, out: Path, display: Display, *, kind: Format, allow_loss: float) -> Exported:
    from client.runs.exports import export_int8
    from client.runs.memo import Memo

    if kind == "safetensors" or not is_folder(student):
        raise UsageError(
            "--int8 takes the directory of a run, whose images tell the ranges, and --web DIR or "
            "--out FILE.onnx."
        )
    run = RunFolder(student)
    exports = export_int8(run, out, allow_loss=allow_loss, memo=Memo(), display=display)
    _write_pages(run)
    return Exported(out=str(out), format="onnx", files=exports.files)


def _write_pages(run: RunFolder) -> None:
    """Write the pages of a run again, if it is finished."""
    if run.summary.exists():
        from client.runs.pages import write_pages

        write_pages(run, run.record(Summary, run.summary))


def _as_safetensors(student: Path, out: Path, _: Display) -> Exported:
    from client.learning.student_file import save_student

    network, metadata = load_network(student, "cpu")
    save_student(network, metadata["student"], out, metadata)
    return Exported(out=str(out), format="safetensors")


def _format_of(out: Path) -> Format:
    if out.suffix == ".onnx":
        return "onnx"
    if out.suffix == ".safetensors":
        return "safetensors"
    raise UsageError(
        f"--out takes a file that ends in .onnx or .safetensors, not {out.name!r}; or say --format onnx or "
        "--format safetensors."
    )
