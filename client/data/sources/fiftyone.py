"""Exports of FiftyOne: `FiftyOneImageClassificationDataset` and `FiftyOneDataset`.

As https://docs.voxel51.com/user_guide/export_datasets.html lays them out (read 2026-12-02), and as fiftyone
writes them (tests/client/data/fiftyone/): images in data/; of the one, labels.json with the class of each
name, of the other, samples.json with the fields of each sample.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from client.data.finder import Skipped, search
from client.data.sources.source import Row, Source, read_json, usual_part
from client.data.tables import Columns
from client.errors import DataError
from client.paths import absence, is_file

_CLASSIFICATION = "Classification"


class FiftyOne(Source):
    """`fiftyone:FOLDER`, as `dataset.export` wrote it."""

    def rows(self, where: str, columns: Columns, *, labelled: bool) -> Iterator[Row | Skipped]:
        """As `Source.rows`."""
        folder = Path(where)
        if is_file(folder / "samples.json"):
            yield from _of_samples(folder, columns, labelled=labelled)
        elif is_file(folder / "labels.json"):
            yield from _of_labels(folder)
        else:
            what = "has neither samples.json nor labels.json" if folder.is_dir() else absence(folder)
            raise DataError(
                f"fiftyone:{folder} {what}. It takes a folder that dataset.export wrote, as the type "
                "FiftyOneDataset or FiftyOneImageClassificationDataset."
            )


SOURCE = FiftyOne()


def _of_labels(folder: Path) -> Iterator[Row | Skipped]:
    """The images of data/ with their classes, by their names without an ending."""
    told = read_json(folder / "labels.json")
    labels, classes = told.get("labels"), told.get("classes") or []
    if not isinstance(labels, dict) or not isinstance(classes, list):
        raise DataError(f"{folder / 'labels.json'} has no `labels`: export the data set anew.")
    images = search(folder / "data")
    yield from images.left_out
    for path in images.images:
        name = path.relative_to(folder / "data").with_suffix("").as_posix()
        yield Row(path, _named(folder, name, labels.get(name), classes))


def _named(folder: Path, name: str, label: Any, classes: list[Any]) -> str:  # noqa: ANN401 (as the file has it)
    """A class by its number, its name, or an object with its name."""
    if isinstance(label, dict):
        label = label.get("label")
    if isinstance(label, int):
        if not 0 <= label < len(classes):
            raise DataError(
                f"{folder / 'labels.json'}: the label of {name} is {label}, of {len(classes)} classes."
            )
        label = classes[label]
    return "" if label is None else str(label).strip()


def _of_samples(folder: Path, columns: Columns, *, labelled: bool) -> Iterator[Row | Skipped]:
    """The samples: the class by a field, the domain by one, and the part of the data set by a tag."""
    samples = read_json(folder / "samples.json").get("samples")
    if not isinstance(samples, list) or not all(
        isinstance(each, dict) and isinstance(each.get("filepath"), str) for each in samples
    ):
        raise DataError(f"{folder / 'samples.json'} has samples without a `filepath`: export it anew.")
    field = _label_field(folder, samples, columns) if labelled else ""
    for sample in samples:
        fields = {str(name).lower(): value for name, value in sample.items()}
        tags = fields.get("tags")
        yield Row(
            folder / sample["filepath"].replace("\0", ""),
            _text(fields.get(field)),
            _text(fields.get(columns["domain"])),
            _text(fields.get(columns["split"]))
            or usual_part(map(str, tags if isinstance(tags, list) else ())),
        )


def _label_field(folder: Path, samples: list[Mapping[str, Any]], columns: Columns) -> str:
    """The field of the class, in small letters: the one that is given, or the only one of classifications."""
    if "label" in columns.named:
        return columns["label"]
    found = {
        str(name).lower()
        for sample in samples
        for name, value in sample.items()
        if isinstance(value, dict) and value.get("_cls") == _CLASSIFICATION
    }
    if len(found) != 1:
        how = f"has classifications in {', '.join(sorted(found))}" if found else "has no classification"
        raise DataError(f"{folder / 'samples.json'} {how}. Say which field it is with --columns label=FIELD.")
    return found.pop()


def _text(value: Any) -> str:  # noqa: ANN401 (as the file has it)
    if isinstance(value, dict):
        value = value.get("label")
    return str(value).strip() if isinstance(value, str | int | float) else ""
