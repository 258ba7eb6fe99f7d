"""What a student gains by each query: budgets from none to a query at every step, and ways to spend them.

    make bench-budgets

On the bundled icons with the default recipe, `colour` held out unless asked otherwise, over a real vendor.
Prints the table of docs/results.md. Runs are kept in benchmarks/.runs, and finished ones are not run again.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

from benchmarks.accuracy import RUNS, icons
from client.buying.selection import Selection
from client.comparison import Comparison, ComparisonConfig, Variant
from client.connection import Connection
from client.data.domains import list_folder, split
from client.display import Display
from client.learning.recipe import Recipe
from client.results.comparison_table import RunResult
from tests.vendor_process import VendorProcess


@dataclass(frozen=True)
class Way:
    """A way to spend.

    Attributes:
        name: what the table calls it.
        per_image: queries an image, on average.
        select: how images are chosen where there are fewer queries than images.
        method: the method.
    """

    name: str
    per_image: float
    select: Selection = "stratified"
    method: str = "vl2v-adip"


FEW = [
    Way(f"{select}-{share}", share, select=select)
    for share in (0.25, 0.5)
    for select in ("stratified", "random", "coverage")
]
MANY = [Way(f"{number} an image", number) for number in (1, 2, 4, 8)]
WAYS = {
    way.name: way
    for way in (
        Way("texts alone", 0),
        *FEW,
        *MANY,
        Way("a fresh query at every step", math.inf, method="unlimited"),
    )
}


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["colour"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", nargs="+", choices=WAYS, default=list(WAYS), metavar="ROW")
    parser.add_argument("--steps", type=int, default=None, help="of distilling (default: the recipe's)")
    arguments = parser.parse_args()

    recipe = Recipe().with_steps(arguments.steps)
    print(f"| way to spend | queries an image | queries | in-domain | {' | '.join(arguments.targets)} |")
    print("|---" * (4 + len(arguments.targets)) + "|")
    with TemporaryDirectory() as books, VendorProcess(Path(books)) as vendor:
        key = Path(books) / "key"
        key.write_text(vendor.create_key())
        connection = Connection(vendor.url, key, RUNS / "cache.db", Display())
        for name in arguments.rows:
            results = list(measured(WAYS[name], recipe, arguments.targets, arguments.seeds, connection))
            print(row(WAYS[name], results, arguments.targets), flush=True)


def measured(
    way: Way, recipe: Recipe, targets: Sequence[str], seeds: Sequence[int], connection: Connection
) -> Iterator[RunResult]:
    """A run for each target and seed: each has other images to train on, and so another budget."""
    for target in targets:
        for seed in seeds:
            config = ComparisonConfig(
                data=icons(),
                variants=[Variant(way.name.replace(" ", "-"), way.method, recipe)],
                targets=[target],
                seeds=[seed],
                student="efficientnet_lite0",
                image_size=64,
                select=way.select,
                queries=None if math.isinf(way.per_image) else queries(way, target, seed),
                views=0 if math.isinf(way.per_image) else max(0, math.ceil(way.per_image) - 1),
            )
            out = RUNS / f"budgets-{recipe.steps}"
            yield from Comparison(config, out, connection, device="cpu").execute()


def queries(way: Way, target: str, seed: int) -> int:
    """The class prompts, and so many for each training image."""
    folder = list_folder(icons())
    examples, _ = folder.read(folder.source_domains(target))
    train, _ = split(examples, holdout=Recipe().holdout, seed=seed)
    return len(folder.classes) + round(way.per_image * len(train))


def row(way: Way, results: Sequence[RunResult], targets: Sequence[str]) -> str:
    """A row of the table: means and deviations over seeds, in %."""
    spent = "unlimited" if math.isinf(way.per_image) else f"{way.per_image:g}"
    cells = [way.name, spent, f"{fmean(result.queries for result in results):,.0f}"]
    cells.append(spread([result.in_domain for result in results]))
    cells += [spread([r.out_of_domain for r in results if r.target == target]) for target in targets]
    return f"| {' | '.join(cells)} |"


def spread(shares: Sequence[float]) -> str:
    """Mean and sample deviation in %."""
    mean = f"{100 * fmean(shares):.1f}"
    return f"{mean} ± {100 * stdev(shares):.1f}" if len(shares) > 1 else mean


if __name__ == "__main__":
    main()
