"""How cost grows as work grows: images of a client, accounts and models of a vendor, entries of books.

    make bench-growth                                                    # all of it: a night, 60 GB of disk
    python -m benchmarks.growth --parts books-sqlite --sizes 10000 100000 --folder DIR
    python -m benchmarks.growth --draw                                   # from what is on record

Each part does work of several sizes, each ten times the one before. What is done with all of it should take
ten times as long, and one time of anything else as long as before; the tables say by how many times the worst
step of a line exceeds that. What was measured goes to the record (`growth.json`), part by part, so that parts
can be run on their own; images and books that are drawn or written for it stay in `--folder` for another run.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import growth_books, growth_images, growth_vendor, plots, results_page
from benchmarks.costs import Cost
from benchmarks.records import ROOT

RECORD = Path(__file__).with_name("growth.json")
PICTURE = ROOT / "docs" / "images" / "growth.svg"
COMMAND = "make bench-growth"
ALLOWED = 1.2
_IMAGES = (1_000, 10_000, 100_000, 1_000_000)
_ACCOUNTS = (1, 10, 100, 1_000, 10_000)
_ENTRIES = (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Part:
    """Work that is measured by its size: of which table it is, the sizes, and what measures one of them."""

    table: str
    sizes: Sequence[int]
    costs: Callable[[int, Path], Iterator[Cost]]


PARTS: Mapping[str, Part] = {
    "files": Part("images", _IMAGES, growth_images.files),
    "plan": Part("images", _IMAGES, growth_images.plan),
    "cache": Part("embeddings in the cache", _IMAGES, growth_images.cache),
    "buying": Part("images", _IMAGES[:-1], growth_images.buying),
    "run": Part("images", _IMAGES, growth_images.run),
    "accounts": Part("accounts", _ACCOUNTS, growth_vendor.accounts),
    "invoices": Part("accounts", _ACCOUNTS, growth_vendor.invoicing),
    "verification": Part("accounts", _ACCOUNTS, growth_vendor.verification),
    "models": Part("models", (1, 4, 16, 64), growth_vendor.models),
    "books-sqlite": Part("entries, SQLite", _ENTRIES, growth_books.sqlite),
    "books-postgresql": Part("entries, PostgreSQL", _ENTRIES, growth_books.postgresql),
}


@dataclass(frozen=True)
class Line:
    """A piece of work, and what it cost at each size, the smallest first."""

    what: str
    costs: Mapping[int, Cost]

    @property
    def flat(self) -> bool:
        """Whether it should cost the same at any size."""
        return all(each.flat for each in self.costs.values())

    @property
    def worst(self) -> float | None:
        """By how many times a size exceeds what the one before it and the work let expect, at most."""
        sizes = list(self.costs)
        steps = [
            self.costs[large].seconds / self.costs[small].seconds * (1 if self.flat else small / large)
            for small, large in pairwise(sizes)
        ]
        return max(steps, default=None)


def main() -> None:
    """Measure, write the record, and from all that is there the tables and the plot of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", type=int, help="instead of all those of each part")
    parser.add_argument("--folder", type=Path, help="where images and books are kept for another run")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    with TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as folder:
        for name in [] if options.draw else options.parts:
            for size in options.sizes or PARTS[name].sizes:
                for cost in PARTS[name].costs(size, Path(folder)):
                    print(f"{name}, {size:,}: {cost}", flush=True)
                    _write_down(PARTS[name].table, size, cost)
    told, picture = tables_and_picture()
    print(told)
    results_page.write(COMMAND, told)
    PICTURE.write_text(picture, encoding="utf-8")


def tables_and_picture() -> tuple[str, str]:
    """The tables of docs/results.md and its picture, of all that is on record."""
    tables = _on_record()
    told = "\n\n".join("\n".join(_table(*each)) for each in tables.items())
    return told, plots.growth([_panel(*each) for each in tables.items()]) + "\n"


def _write_down(table: str, size: int, cost: Cost) -> None:
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    line = record.setdefault(table, {}).setdefault(cost.what, {})
    line[str(size)] = {name: value for name, value in asdict(cost).items() if name != "what"}
    line[str(size)]["seconds"] = float(f"{cost.seconds:.4g}")
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def _on_record() -> dict[str, list[Line]]:
    """The lines of each table, as they were written down; tables in the order of the parts."""
    record = json.loads(RECORD.read_text())
    return {
        table: [
            Line(what, {int(size): Cost(what, **line[size]) for size in sorted(line, key=int)})
            for what, line in record[table].items()
        ]
        for table in dict.fromkeys(part.table for part in PARTS.values())
        if table in record
    }


def _table(name: str, lines: Sequence[Line]) -> Iterator[str]:
    """A row a line: its time at each size, the worst step, and the most memory at each size."""
    sizes = sorted({size for line in lines for size in line.costs})
    yield f"| {name} | {' | '.join(f'{size:,}' for size in sizes)} | worst step | MiB |"
    yield f"|---|{'---:|' * (len(sizes) + 2)}"
    for line in lines:
        times = [_written(line.costs[size].seconds) if size in line.costs else "" for size in sizes]
        memory = [f"{each.bytes / 2**20:,.0f}" for each in line.costs.values() if each.bytes is not None]
        worst = "" if line.worst is None else f"{line.worst:.2f}"
        worst = f"**{worst}**" if (line.worst or 0) > ALLOWED else worst
        yield f"| {line.what} | {' | '.join(times)} | {worst} | {', '.join(memory)} |"


def _panel(name: str, lines: Sequence[Line]) -> plots.Grown:
    seconds = {line.what: [(size, cost.seconds) for size, cost in line.costs.items()] for line in lines}
    return plots.Grown(name, seconds, frozenset(line.what for line in lines if line.flat))


def _written(seconds: float) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-6:.3g} µs"


if __name__ == "__main__":
    main()
