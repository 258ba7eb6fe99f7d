"""The pages of a run, from what it left in its folder: the report, and the model card."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

from client.data.images import UnreadableImage, decode_square, read_image
from client.results.predictions import LabelledPrediction, read_predictions, worst_mistakes
from client.results.records import Plan, Summary
from client.results.report import Mistake, Run, render_model_card, render_report
from client.runs.folder import RunFolder

_MISTAKES = 12
_THUMBNAIL = 96


def write_pages(run: RunFolder, summary: Summary) -> None:
    """Write the report and the model card of a run.

    Raises:
        ClientError: a file that they are made of is missing, or they cannot be written.
    """
    config, answers = run.read(run.config), read_predictions(run.answers)
    tested = [answer for answer in answers if not answer.seen] or answers
    folder = Path(config["data"])
    mistakes = [Mistake(a, _thumbnail(folder, a)) for a in worst_mistakes(tested, _MISTAKES)]
    plan = Plan.model_validate(run.read(run.plan)).to_json()
    found = Run(summary.to_json(), plan, config, run.rows(), answers, mistakes)
    run.write_text(run.report, render_report(found))
    run.write_text(run.model_card, render_model_card(found))


def _thumbnail(folder: Path, answer: LabelledPrediction) -> str | None:
    """The image as a data URI, squeezed as the student sees it; `None` if it is no longer there."""
    try:
        pixels, _ = decode_square(read_image(folder / answer.image), _THUMBNAIL)
    except UnreadableImage:
        return None
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode('ascii')}"
