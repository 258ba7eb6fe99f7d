"""The predictions of a student for the images that it was tested on, of which a report is made."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from client.errors import ClientError
from client.results.escaping import csv_line, from_csv

# So many mistakes are worth a look.
MISTAKES_SHOWN = 12

_COLUMNS = ("image", "domain", "seen", "label", "predicted", "confidence")


@dataclass(frozen=True)
class LabelledPrediction:
    """A student's prediction about one image that it was not trained on.

    Attributes:
        image: its path, relative to the data folder.
        domain: of the image.
        seen: whether images of this domain were trained on.
        label: its class.
        predicted: the class that the student names.
        confidence: the probability that it gives this class, from 0 to 1.
    """

    image: str
    domain: str
    seen: bool
    label: str
    predicted: str
    confidence: float

    @property
    def right(self) -> bool:
        """Whether the student names the image's class."""
        return self.predicted == self.label


def predictions_as_csv(predictions: Iterable[LabelledPrediction]) -> str:
    """A table with a row for each prediction, under its attributes' names; see `csv_line`."""
    rows = ({**asdict(prediction), "seen": int(prediction.seen)} for prediction in predictions)
    return csv_line(_COLUMNS) + "".join(csv_line(row[name] for name in _COLUMNS) for row in rows)


def read_predictions(path: Path) -> list[LabelledPrediction]:
    """The predictions of a `predictions_as_csv` file.

    Raises:
        ClientError: it is missing or is not one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                LabelledPrediction(
                    from_csv(row["image"]),
                    from_csv(row["domain"]),
                    row["seen"] == "1",
                    from_csv(row["label"]),
                    from_csv(row["predicted"]),
                    float(row["confidence"]),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ClientError(f"{path} cannot be read: {error!r}. Is its folder a finished run?") from error


def tested_on(predictions: Sequence[LabelledPrediction]) -> list[LabelledPrediction]:
    """Those that mistakes are looked for in: about domains never trained on, or else about the hold-outs."""
    return [prediction for prediction in predictions if not prediction.seen] or list(predictions)


def worst_mistakes(predictions: Iterable[LabelledPrediction], count: int) -> list[LabelledPrediction]:
    """The wrong predictions that the student was most confident of, at most so many."""
    wrong = [prediction for prediction in predictions if not prediction.right]
    return sorted(wrong, key=lambda prediction: -prediction.confidence)[:count]


def confusion(predictions: Iterable[LabelledPrediction], classes: Sequence[str]) -> list[list[int]]:
    """How often an image of one class (row) was taken for another (column)."""
    place = {name: position for position, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for prediction in predictions:
        counts[place[prediction.label]][place[prediction.predicted]] += 1
    return counts
