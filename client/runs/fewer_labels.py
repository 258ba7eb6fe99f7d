"""The same images with fewer labels: a table of those that keep theirs, and one of those that lose them."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from client.data.domains import ImageFolder
from client.errors import ClientError, UsageError, unwritable
from client.paths import is_file, whole_file


class FewerLabels(NamedTuple):
    """Two tables: of the images with labels, those of the target among them, and of the others, if any."""

    labelled: Path
    others: Path | None


def with_labels(images: ImageFolder, into: Path, *, target: str, seed: int, count: int) -> FewerLabels:
    """Write the tables of a run whose source domains have `count` labels a class in all.

    Domains take turns, and with the same seed fewer labels are among more of them.

    Args:
        images: all of them, with their labels.
        into: a folder for tables, which are named by their content.
        target: the domain that is held out; its labels stay, for the student is tested by them.
        seed: of the draw.
        count: how many labels each class has, as far as it has images.

    Raises:
        UsageError: the images are no files of their own.
        ClientError: a table cannot be written.
    """
    kept, others = [], []
    for name in images.classes:
        drawn = _in_turn(images, name, target, seed)
        kept += [(path, name, domain) for domain, path in drawn[:count]]
        others += [path for _, path in drawn[count:]]
    kept += [
        (path, name, domain)
        for (domain, name), paths in images.files.items()
        if domain == target
        for path in paths
    ]
    if missing := next((path for path, *_ in kept if not is_file(path)), None):
        raise UsageError(
            f"--labels takes a folder or a table of image files, and {missing} is none: leave --labels out."
        )
    return FewerLabels(
        _table(into, ("path", "label", "domain"), sorted(kept)),
        _table(into, ("path",), [(path,) for path in sorted(others)]) if others else None,
    )


def _in_turn(images: ImageFolder, name: str, target: str, seed: int) -> list[tuple[str, Path]]:
    """The images of a class in the source domains, in the order in which they keep their labels."""

    def drawn(*words: str) -> bytes:
        return hashlib.sha256(repr((seed, name, *words)).encode("utf-8", "surrogateescape")).digest()

    domains = sorted((each for each in images.domains if each != target), key=drawn)
    turns = []
    for place, domain in enumerate(domains):
        paths = sorted(images.files.get((domain, name), ()), key=lambda each: drawn(str(each.name)))
        turns += [(turn, place, domain, path) for turn, path in enumerate(paths)]
    return [(domain, path) for _, _, domain, path in sorted(turns, key=lambda each: each[:2])]


def _table(into: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    content = text.getvalue().encode("utf-8", "surrogateescape")
    table = into / f"{hashlib.sha256(content).hexdigest()[:32]}.csv"
    if not is_file(table):
        try:
            into.mkdir(parents=True, exist_ok=True)
            with whole_file(table) as part:
                part.write_bytes(content)
        except OSError as error:
            raise ClientError(unwritable(table, error)) from error
    return table
