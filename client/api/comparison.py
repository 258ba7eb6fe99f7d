"""Many runs over one purchase, and their table."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict

from client.api.checks import require_named, require_outside
from client.api.confirm import Confirm, purchases
from client.api.settling import settled_options, with_files
from client.data.names import composed
from client.errors import UsageError
from client.learning.methods import method_name, method_of, with_steps
from client.learning.processes import chosen_device, is_distributed
from client.learning.recipe import Recipe, Variant
from client.options.training import CompareOptions
from client.progress import ProgressListener
from client.purchase.selection import SelectionStrategy, acquisition_name, acquisition_of
from client.results.comparison_table import ComparisonTable, as_card, as_text
from client.results.frames import data_frame
from client.results.records import Record
from client.runs import comparison as runs
from client.runs.config import RunConfig
from client.runs.connection import Connection
from client.runs.zero_shot import ZERO_SHOT

if TYPE_CHECKING:
    from pandas import DataFrame


class ComparisonPlan(Record):
    """The purchase that all runs of a comparison would make together.

    Attributes:
        runs: how many there are, finished ones among them.
        cached: distinct queries that the cache answers.
        to_buy: queries that would be bought at the most (fewer if nothing is learnt of the teacher), as far
            as `max_spend_micros` reaches.
        cost_micros: their price, in millionths of the vendor's currency unit.
        unaffordable: queries that `max_spend_micros` does not reach. With any, no run is started.
        enough_micros: the least `max_spend_micros` that reaches them all; `None` where this one does.
    """

    runs: int
    cached: int
    to_buy: int
    cost_micros: int
    unaffordable: int
    enough_micros: int | None


class Comparison(BaseModel):
    """A finished comparison.

    Attributes:
        path: its folder, with a folder for each run, and the table as a page, text, CSV, Markdown, LaTeX and
            JSON.
        table: what the runs came to.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    table: ComparisonTable

    @property
    def text(self) -> str:
        """The table for a terminal."""
        return as_text(self.table.runs, self.table.setting)

    def _repr_html_(self) -> str:
        return as_card(self.table.runs, self.table.setting)

    def to_pandas(self) -> "DataFrame":
        """A row a run that has finished; accuracies from 0 to 1.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame(map(asdict, self.table.runs))

    def to_json(self) -> dict[str, Any]:
        """Return the table as `table.json` has it, for `json.dumps`."""
        return self.table.to_json()


def plan_comparison(options: CompareOptions, *, progress: ProgressListener | None = None) -> ComparisonPlan:
    """Plan the purchase of all runs together; spends nothing, and writes as `plan` does.

    Raises:
        UsageError: an option or the image folder is not what the runs need.
        VendorError: the vendor does not answer, or refuses.
    """
    comparison = _comparison(with_files(options, progress), None, progress)
    return ComparisonPlan(runs=len(comparison.cells), **comparison.quote()._asdict())


def compare(
    options: CompareOptions, *, confirm: Confirm | None = None, progress: ProgressListener | None = None
) -> Comparison:
    """Hold each domain out in turn, by every method and seed, and make one table.

    Each image is paid for once over all runs. The same options resume an interrupted comparison; with more
    methods or seeds they add to a finished one.

    Args:
        options: what is compared.
        confirm: is asked whether a purchase of more than five units may begin, unless the options say so.
            Without it such a purchase is refused.
        progress: is told how the work goes on.

    Raises:
        UsageError: an option or the image folder is not what the runs need, or nobody agreed.
        SpendingStopped: a limit was reached before all that the runs ask was bought.
        ClientError: see client/errors.py; what was bought and trained so far is kept.
    """
    comparison = _comparison(with_files(options, progress), confirm, progress)
    results = comparison.execute()
    return Comparison(path=options.out, table=ComparisonTable.of(results, comparison.setting))


def _comparison(
    options: CompareOptions, confirm: Confirm | None, progress: ProgressListener | None
) -> runs.ComparisonRunner:
    if is_distributed():
        raise UsageError(
            "A comparison is one process. For several GPUs, start one on each, with other domains, seeds or "
            "methods and another --out; they may share the cache."
        )
    require_named(options.data)
    require_outside(options.out, options.data)
    if (options.budget is not None or options.budgets) and acquisition_of(
        acquisition_name(options.select)
    ) is not None:
        raise UsageError(
            "A comparison buys for all its runs before any begins, so with --budget its images are chosen by "
            f"{' or '.join(get_args(SelectionStrategy))}: --select. `client distill` chooses round by round."
        )
    settled = settled_options(options, options, options)
    recipe = settled.pop("recipe")
    config = runs.ComparisonConfig(
        RunConfig(**settled, recipe=recipe, use_at_most=options.budget),
        variants=[_row(row, recipe, options.steps) for row in options.methods],
        targets=[composed(name) for name in options.target_domains],
        seeds=range(options.seeds),
        labels=[None if each == "all" else each for each in options.labels] or [None],
        budgets=[None if each == "all" else each for each in options.budgets],
    )
    return runs.ComparisonRunner(
        config,
        options.out,
        Connection(options, progress),
        device=chosen_device(options.device),
        max_spend_micros=options.max_spend_micros,
        approve=purchases(agreed=options.agreed, confirm=confirm),
    )


def _row(given: str | Variant | Any, recipe: Recipe, steps: int | None) -> Variant:  # noqa: ANN401 (a method)
    """A row as the options have it: a name, a method or a variant.

    Raises:
        UsageError: there is no such method.
    """
    name = given.method if isinstance(given, Variant) else method_name(given)
    if name != ZERO_SHOT:
        method_of(name)  # from here on it is known
    return given if isinstance(given, Variant) else Variant(name, name, with_steps(recipe, name, steps))
