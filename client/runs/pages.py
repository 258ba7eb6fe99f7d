"""The pages of a run, from what it left in its folder: the report, and the model card."""

from base64 import b64encode
from collections import Counter
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image

from client.data.images import UnreadableImage, decode_square, read_image
from client.data.sources.source import data_folder
from client.learning.student_file import load_student_metadata
from client.results.predictions import MISTAKES_SHOWN, read_predictions, tested_on, worst_mistakes
from client.results.records import Disagreement, Exports, Neighbour, Plan, Review, Summary
from client.results.report import Mistake, Pictured, ReportData, render_card, render_model_card, render_report
from client.runs.folder import RunFolder

_THUMBNAIL, _SAMPLE = 96, 224  # pixels


def write_pages(run: RunFolder, summary: Summary, *, stands_in: Path | None = None) -> None:
    """Write the report and the model card of a run.

    Args:
        run: the run.
        summary: what it came to.
        stands_in: the folder that the pages name, where its files are moved to another in the end.

    Raises:
        ClientError: a file that they are made of is missing or damaged, or they cannot be written.
    """
    config, answers = run.read_config(), read_predictions(run.answers)
    folder = data_folder(config.data)
    review = run.record(Review, run.review) if run.review.exists() else None
    likes = review.neighbours if review else {}
    mistakes = [
        Mistake(
            each,
            _thumbnail(folder, each.image),
            _pictured(folder, likes[each.image]) if each.image in likes else None,
        )
        for each in worst_mistakes(tested_on(answers), MISTAKES_SHOWN)
    ]
    doubts = [_pictured(folder, each) for each in review.disagreements] if review else []
    exports = run.record(Exports, run.exports) if run.exports.exists() else None
    found = ReportData(
        summary, run.record(Plan, run.plan), str(config.data), config.recipe, run.rows(), answers, mistakes,
        review, doubts, exports, folder=str(stands_in or run.path), in_browser=_is_in_browser(run),
    )  # fmt: skip
    run.write_text(run.report, render_report(found))
    run.write_text(run.model_card, render_model_card(found))


def card_of(run: RunFolder, summary: Summary) -> str:
    """The report in short, for a notebook."""
    config, answers = run.read_config(), read_predictions(run.answers)
    found = ReportData(
        summary, run.record(Plan, run.plan), str(config.data), config.recipe, run.rows(), answers, (),
        folder=str(run.path),
    )  # fmt: skip
    return render_card(found)


def _is_in_browser(run: RunFolder) -> bool:
    """Whether the folder has a page on which this student answers, and not one of an earlier student."""
    facts = run.web / "student.json"
    if not facts.exists():
        return False
    stamp = run.read(facts).get("stamp")
    return stamp is not None and stamp == load_student_metadata(run.student).stamp


def _pictured(folder: Path, found: Disagreement | Neighbour) -> Pictured:
    return Pictured(found, _thumbnail(folder, found.image))


def samples_of(run: RunFolder, count: int) -> list[bytes]:
    """Images that a run was tested on as JPEG files, a class in turn, squeezed as the student sees them.

    They have neither names nor other metadata. Those that are no longer there are left out.

    Raises:
        ClientError: the run's answers are missing or damaged.
    """
    folder, turns = data_folder(run.read_config().data), Counter[str]()
    ranked = []
    for each in sorted(tested_on(read_predictions(run.answers)), key=lambda one: one.image):
        turns[each.label] += 1
        ranked.append((turns[each.label], each.label, each.image))
    found = (_squeezed(folder, image, _SAMPLE) for _, _, image in sorted(ranked))
    return list(islice((each for each in found if each is not None), count))


def _thumbnail(folder: Path, image: str) -> str | None:
    """The image as a data URI; `None` if it is no longer there."""
    content = _squeezed(folder, image, _THUMBNAIL)
    return None if content is None else f"data:image/jpeg;base64,{b64encode(content).decode('ascii')}"


def _squeezed(folder: Path, image: str, side: int) -> bytes | None:
    """The image as a JPEG file, squeezed as the student sees it; `None` if it is no longer there."""
    try:
        pixels, _ = decode_square(read_image(folder / image), side)
    except UnreadableImage:
        return None
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()
