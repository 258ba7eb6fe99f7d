"""What a student gains by each query: budgets from none to a query at every step, and ways to spend them.

    make bench-budgets

On the bundled icons with the default recipe, `colour` held out unless asked otherwise, over a real vendor.
Prints the table of benchmarks/notebook.md, and draws it with `--plot FILE.svg`. Runs on record (records.py)
are not made again.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.accuracy import icons, in_domain, measured, measured_rows, parser_of_runs
from benchmarks.plots import Place, spent_and_gained
from client.data.domains import list_folder
from client.data.splits import split
from client.learning.recipe import Recipe, Variant
from client.purchase.selection import SelectionStrategy
from client.results.comparison_table import RunResult, Spread
from client.runs.comparison import ComparisonConfig


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
    select: SelectionStrategy = "stratified"
    method: str = "vl2v-adip"


FEW = [
    Way(f"{select}-{share}", share, select=select)
    for share in (0.25, 0.5)
    for select in ("stratified", "random")
]
WAYS = {
    way.name: way
    for way in (
        Way("ERM, nothing bought", 0, method="erm"),
        Way("texts alone", 0, method="text-only"),
        *FEW,
        Way("one an image", 1),
        Way("a fresh query at every step", math.inf, method="unlimited"),
    )
}


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--targets", nargs="+", default=["colour"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", nargs="+", choices=WAYS, default=list(WAYS), metavar="ROW")
    parser.add_argument("--plot", type=Path, help="draw the rows that differ in budget alone as an SVG")
    arguments = parser.parse_args()

    recipe = Recipe().with_steps(arguments.steps)
    print(f"| way to spend | queries an image | queries | in-domain | {' | '.join(arguments.targets)} |")
    print("|---" * (4 + len(arguments.targets)) + "|")
    found = {}

    def results(way: Way) -> list[RunResult]:
        size = f"{arguments.image_size}px-{recipe.steps}"
        records = measured(configs(arguments, way, recipe), f"budgets-{arguments.student}-{size}")
        return [each.result for each in records]

    for way, of_row in measured_rows([WAYS[name] for name in arguments.rows], results):
        found[way] = of_row
        print(row(way, found[way], arguments.targets), flush=True)
    if arguments.plot:
        arguments.plot.write_text(plot(found, arguments.targets) + "\n", encoding="utf-8")


def configs(arguments: argparse.Namespace, way: Way, recipe: Recipe) -> Iterator[ComparisonConfig]:
    """One for each target and seed: each has other images to train on, and so another budget.

    Where all that a run asks is bought, it needs none, and may be a run of another table.
    """
    for target in arguments.targets:
        for seed in arguments.seeds:
            yield ComparisonConfig(
                data=icons(),
                variants=[Variant(way.name.replace(" ", "-"), way.method, recipe)],
                targets=[target],
                seeds=[seed],
                student=arguments.student,
                image_size=arguments.image_size,
                select=way.select,
                queries=queries(way, target, seed) if 0 < way.per_image < 1 else None,
            )


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
    cells.append(Spread.of([in_domain(result) for result in results]).show())
    cells += [_on(target, results).show() for target in targets]
    return f"| {' | '.join(cells)} |"


def _on(target: str, results: Sequence[RunResult]) -> Spread:
    return Spread.of([result.out_of_domain for result in results if result.target == target])


# -- the plot


def plot(found: Mapping[Way, Sequence[RunResult]], targets: Sequence[str]) -> str:
    """Accuracy on each target by queries an image.

    Ways that differ in more than their budget are left out; fine-tuning comes first and is not joined.
    """
    ways = [way for way in found if way.select == "stratified"]
    places = [Place(x, _named(way), joined=way.method != "erm") for x, way in enumerate(ways)]
    lines = {target: [_on(target, found[way]) for way in ways] for target in targets}
    return spent_and_gained(
        places, lines, "Accuracy on a style never trained on, by queries an image", "queries an image"
    )


def _named(way: Way) -> str:
    """What stands below a way's points."""
    if way.per_image == 0:
        return "ERM" if way.method == "erm" else "texts alone"
    return "every step" if math.isinf(way.per_image) else f"{way.per_image:g}"


if __name__ == "__main__":
    main()
