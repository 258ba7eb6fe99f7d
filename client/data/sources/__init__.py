"""One module a way of keeping labelled images, whose name is its prefix: where they are, and what is told."""

from pathlib import Path
from pkgutil import iter_modules


def source_names() -> tuple[str, ...]:
    """The prefixes; no source is imported."""
    return tuple(name for _, name, _ in iter_modules([str(Path(__file__).parent)]) if name != "source")
