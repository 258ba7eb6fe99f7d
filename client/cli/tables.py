"""Results, printed for people on standard output."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from client.cache.embeddings import CacheContents
from client.cli.command import print_line
from client.data.finder import described
from client.results.intervals import Interval, in_percent
from client.results.records import (
    ExportedFile,
    Outlook,
    Plan,
    PlannedPurchase,
    TeacherCheck,
    TriedWording,
    described_check,
    described_trial,
    held_out_whole,
)
from client.vendors.query import Spending
from client.vendors.signatures import time_of
from shared.batches import BatchObject
from shared.embeddings import ModelCard
from shared.kinds import KINDS
from shared.text import visible

if TYPE_CHECKING:  # torch takes seconds to import
    from client.api.account import AccountUsage
    from client.api.comparison import ComparisonPlan
    from client.api.distillation import Run
    from client.api.students import Predictions

# The kinds of spending, in words.
_TRANCHES = {
    "texts": "class texts",
    "labelled": "labelled images",
    "unlabelled": "unlabelled images",
}
# The answer about an image that shows none of the classes, which stands where its class would.
NONE_OF_THESE = "(none of these)"
# Characters of a cell, which may be a vendor's.
_LONGEST_CELL = 1000
# Classes of which a plan shows each.
_CLASSES_SHOWN = 30


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, words: int = 1) -> None:
    """A table whose first `words` columns stand left, the others right. Names cannot style anything."""
    table = Table()
    for position, column in enumerate(columns):
        justify: JustifyMethod = "left" if position < words else "right"
        table.add_column(Text(visible(column)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(str(cell)[:_LONGEST_CELL])) for cell in row))
    Console().print(table)


def percent(share: float) -> str:
    """A share from 0 to 1 in %, to a tenth."""
    return f"{100 * share:.1f}"


def print_summary(run: "Run") -> None:
    """A finished run: accuracy by domain, what was bought, where the report and the student are."""
    summary = run.summary
    accuracy = summary.accuracy
    standing, mean = ("unseen", "out-of-domain") if summary.weights_known else ("held out", "held-out domain")
    if summary.adapted:
        standing, mean = "adapted to", "after adaptation"
    rows: list[tuple[str, str, str, object]] = [
        (
            f"{name} ({standing})" if name == summary.target_domain else name,
            percent(share),
            in_percent(accuracy.intervals_by_domain.get(name)),
            accuracy.images_by_domain[name],
        )
        for name, share in accuracy.by_domain.items()
    ]
    if accuracy.in_domain is not None:
        rows.append(("in-domain", percent(accuracy.in_domain), in_percent(accuracy.in_domain_interval), ""))
    if accuracy.out_of_domain is not None:
        rows.append((mean, percent(accuracy.out_of_domain), in_percent(accuracy.out_of_domain_interval), ""))
    if rows:
        print_table(("domain", "accuracy (%)", "95% interval", "images"), rows)
    else:
        print_line("No image with a label was held out: how often the student is right was not measured.")
    if rows and summary.target_domain is None:
        print_line(_meaning_without_target(run))
    cost = _cost(summary.cost_micros, summary.teacher.currency if summary.teacher else None)
    print_line(
        f"Bought {summary.queries_bought} queries for {cost}; {summary.queries_cached} came from the cache."
    )
    if summary.unlabelled_images:
        print_line(f"Learnt from {summary.unlabelled_images} images without labels as well.")
    if summary.left_out:
        print_line(f"Left out: {described(summary.left_out)}; summary.json and plan.json have all.")
    print_line(f"Report:  {run.report}")
    print_line(f"Student: {run.weights}")


def _cost(micros: int, currency: str | None) -> str:
    """An amount, exact, in the currency where the vendor has named it."""
    return f"{micros} micros" if currency is None else f"{micros // 10**6}.{micros % 10**6:06d} {currency}"


def _meaning_without_target(run: "Run") -> str:
    """The meaning of the accuracy of a student that was trained with no target domain."""
    summary = run.summary
    leave_one_out = summary.leave_one_out
    if not leave_one_out:
        like = "No domain was held out: this is the accuracy on images like those it learnt from."
        if unlearnt := held_out_whole(run.plan, summary.accuracy):
            like = (
                f"All images of {', '.join(unlearnt)} are held out: the mean over domains counts more than "
                "images like those it learnt from."
            )
        if not summary.train_images:
            like = "No labelled image was trained on: this is the accuracy on those that were held out."
        return (
            f"{like} What to expect of a new style, camera or season is not measured; --leave-one-out "
            "measures it."
        )
    by_domain = ", ".join(
        f"{name} {percent(share)}{_in_brackets(summary.leave_one_out_intervals.get(name))}"
        for name, share in leave_one_out.items()
    )
    return (
        f"To expect of a new domain: {percent(fmean(leave_one_out.values()))}%, the mean over students that "
        f"were trained without one ({by_domain})."
    )


def _in_brackets(interval: Interval | None) -> str:
    return "" if interval is None else f" ({in_percent(interval)})"


def print_plan(plan: Plan) -> None:
    """Print the plan of a run."""
    print_table(("domain", "images"), plan.images_by_domain.items())
    pool = f", {plan.unlabelled_images} without labels" if plan.unlabelled_images else ""
    print_line(
        f"{plan.train_images} training images{pool}, {plan.holdout_images} held out for selection; "
        f"{plan.steps} training steps."
    )
    if plan.training_seconds is not None:
        from client.results.rendering import duration

        print_line(
            f"Training takes about {duration(plan.training_seconds)} on this machine, as busy as it is."
        )
    if plan.unseen_images:
        print_line(
            f"{plan.unseen_images} of the images without labels are not bought: so few steps look at no more "
            "of them. More --steps would use them, as would leaving --steps out."
        )
    if plan.left_out:
        print_line(f"Left out: {described(plan.left_out)}; --json lists them.")
    purchase = plan.purchase
    if purchase is None:
        print_line(f"The method {plan.method} buys nothing.")
        return
    check = plan.teacher_check
    quote = None if plan.outlook is None else plan.outlook.quote
    _print_tranches(purchase, plan.gains or {}, None if quote is None else quote.currency)
    if plan.advice is not None:
        print_line(f"{plan.advice} Your images will differ: --study measures it on them.")
    if purchase.duplicates:
        print_line(f"{purchase.duplicates} queries are alike, and bought once.")
    if purchase.unaffordable:
        print_line(f"{purchase.unaffordable} queries are beyond the budget and would go without.")
        if any(tranche.name == "texts" and tranche.unaffordable for tranche in purchase.tranches):
            print_line(
                "Class texts are among them, and a student cannot name its classes without these: a run with "
                "this budget cannot train."
            )
    elif purchase.budget_left and purchase.images and (check is None or check.learnt_from):
        use = "more images would use them (--unlabelled)"
        if plan.unseen_images:
            use = "more --steps would use them"
        print_line(f"{purchase.budget_left} queries of the budget would stay unspent: {use}.")
    _print_strata(purchase.to_buy_by_domain_and_class, plan.classes)
    if plan.tried_prompts is not None:
        print_tried(plan.tried_prompts)
    if check is not None:
        print_check(check)
    if plan.outlook is not None:
        _print_outlook(plan.outlook, buys=purchase.to_buy > 0)


def _print_tranches(purchase: PlannedPurchase, gained: Mapping[str, float], currency: str | None) -> None:
    """Print the queries to buy by kind, in the order of purchase, with the gain of each kind elsewhere."""
    shown = [tranche for tranche in purchase.tranches if tranche.queries]
    gains = [f"{gained[t.name]:+.1f}" if t.name in gained else "" for t in shown]
    cost = "micros" if currency is None else f"millionths of {currency}"
    columns = ("to buy, in this order", "needed", "in the cache", "to buy", "beyond the budget", cost)
    rows: list[tuple[str | int, ...]] = [
        (_TRANCHES[t.name], t.queries, t.cached, t.to_buy, t.unaffordable, t.cost_micros) for t in shown
    ]
    total = ("all", sum(t.queries for t in purchase.tranches), purchase.cached, purchase.to_buy)
    rows.append((*total, purchase.unaffordable, purchase.cost_micros))
    if not any(gains):
        print_table(columns, rows)
        return
    marked = [(*row, gain) for row, gain in zip(rows, [*gains, ""], strict=True)]
    print_table((*columns, "points gained on icons"), marked)
    print_line(
        "The last column is what each kind of spending gained on styles of the bundled icons that were not "
        "trained on, on top of those above it and of --method label-only, which asks nothing "
        "(docs/results.md, which has the deviations). Your images will differ."
    )
    if "unlabelled" not in gained and any(tranche.name == "unlabelled" for tranche in shown):
        print_line(
            "What images without labels gain where every domain trains was not measured here, and may be "
            "less than nothing: compare with the same run without them."
        )


def print_joint_plan(plan: "ComparisonPlan") -> None:
    """Print the purchase that all runs of a comparison would make together."""
    print_line(
        f"{plan.runs} runs would buy {plan.to_buy} queries for {plan.cost_micros} micros in all; "
        f"{plan.cached} are in the cache."
    )
    if plan.unaffordable:
        print_line(
            f"--max-spend does not reach {plan.unaffordable} more, so no run would be started: it takes a "
            f"--max-spend of at least {plan.enough_micros}."
        )


def print_check(check: TeacherCheck) -> None:
    """How right the teacher is about labelled images, and what that means."""
    rows: list[tuple[str, str, str, object]] = [
        (name, percent(each.accuracy), in_percent(each.interval), each.images)
        for name, each in check.by_domain.items()
    ]
    if len(rows) > 1:
        rows.append(("mean", percent(check.accuracy), in_percent(check.interval), ""))
    print_table(("the teacher, by your labels", "right (%)", "95% interval", "images"), rows)
    print_line(
        f"{described_check(check)} An image is {check.gap:.2f} nearer (cosine) to its class text than to "
        "the others."
    )
    if check.more_to_settle == 0:
        return
    would = f"about {check.more_to_settle} more queries would (a larger --probe)"
    if check.more_to_settle is None:
        would = "nor would all of yours"
    print_line(
        "A run trusts a teacher that is right about 80%, and learns nothing from one below 70%. So few "
        f"images do not tell yet which this one is; {would}."
    )


def print_tried(tried: Sequence[TriedWording]) -> None:
    """Print how right the teacher is by several wordings, and which one the labels prefer."""
    rows = [
        (
            " + ".join(each.templates) if not each.prompts_of_classes else "the file of --prompts",
            percent(each.accuracy),
            in_percent(each.interval),
            sum(domain.images for domain in each.by_domain.values()),
            f"+{each.gained} -{each.lost}" if each.gained or each.lost else "",
        )
        for each in tried
    ]
    columns = ("classes asked for as", "right (%)", "95% interval", "images", "against the usual prompt")
    print_table(columns, rows)
    print_line(described_trial(tried))


def _print_strata(by_domain: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> None:
    """Images to buy by domain and class: every number where they fit on a screen, or else the extremes."""
    if not by_domain:
        return
    if len(classes) <= _CLASSES_SHOWN:
        rows: list[list[object]] = [[name, *(c.get(name, 0) for c in by_domain.values())] for name in classes]
        rows.append(["all", *(sum(c.values()) for c in by_domain.values())])
        print_table(("images to buy", *by_domain), rows)
        return
    extremes = [
        (domain, sum(counts.values()), len(counts), min(counts.values()), max(counts.values()))
        for domain, counts in by_domain.items()
    ]
    print_table(("domain", "images to buy", "classes", "fewest of a class", "most"), extremes)
    print_line("--json shows the number of each class.")


def _print_outlook(outlook: Outlook, *, buys: bool) -> None:
    quote = outlook.quote
    if not outlook.prices_known:
        print_line("This vendor states no prices: say with --price what it charges, or costs are shown as 0.")
    elif quote is None:
        print_line("Without a key, that is the vendor's standard price.")
    elif not quote.fits_money:
        print_line("The account's spend limit or credit does not suffice: buying will stop there.")
    if quote is not None and quote.quota_left is not None:
        verdict = "enough" if quote.fits_quota else "not enough: buying will stop there"
        print_line(f"The vendor's quota leaves {quote.quota_left} queries: {verdict}.")
    if outlook.seconds is not None:
        print_line(f"At the rate of the last comparable purchase it takes {outlook.seconds:.0f} s.")
    elif buys:
        print_line(
            "How long it takes is unknown: no purchase of this size from this model took long enough to tell."
        )


def print_holdings(path: Path, size: int, holdings: Iterable[CacheContents], paid: Spending) -> None:
    """Print the contents of a cache, and what was paid for them."""
    print_table(
        ("model", "kind", "embeddings", "MB"),
        [(h.fingerprint, h.kind, h.embeddings, f"{h.vector_bytes / 1e6:.1f}") for h in holdings],
    )
    print_line(f"{path}: {size / 1e6:.1f} MB. Paid: {paid.queries} queries for {paid.cost_micros} micros.")


def print_predictions(predictions: "Predictions", *, written: Path | None = None) -> None:
    """The most probable classes of each image, or which file they are written to; who answered, and the cost.

    Above the classes of an image that shows none of them, a row says so.
    """
    who = predictions.answered_by
    rows: list[tuple[str, ...]] = []
    for image, ranked in predictions.classes.items():
        said = [(name, percent(probability)) for name, probability in ranked.items()]
        if predictions.named.get(image, "") is None:
            said = [(NONE_OF_THESE, ""), *said]
        rows += [
            ("", *each, "") if position else (image, *each, who.get(image, ""))
            for position, each in enumerate(said)
        ]
    columns = ("image", "class", "probability (%)", "answered by")
    width = len(columns) if who else len(columns) - 1
    if written is not None:
        print_line(f"{written} has the answers about {len(predictions.classes)} images.")
    elif rows:
        print_table(columns[:width], [row[:width] for row in rows])
    if who:
        counts = Counter(who.values())
        asked = ", ".join(f"{counts[name]} by {name}" for name in ("student", "cache", "vendor"))
        print_line(
            f"Answered {asked}; {predictions.queries_bought} queries paid, {predictions.cost_micros} micros."
        )


def print_exports(files: Sequence[ExportedFile]) -> None:
    """Print size, speed and accuracy of a student in 32 bits and in eight."""
    columns = ("", "MiB", "ms an image", "images/s", "in-domain (%)", "target domain (%)")
    rows = [
        (
            each.kind,
            f"{each.size_bytes / 2**20:.1f}",
            f"{each.milliseconds:.1f}",
            f"{each.images_per_second:.0f}",
            *(
                "" if share is None else f"{percent(share)}{_in_brackets(interval)}"
                for share, interval in (
                    (each.in_domain, each.in_domain_interval),
                    (each.out_of_domain, each.out_of_domain_interval),
                )
            ),
        )
        for each in files
    ]
    if rows:
        print_table(columns, rows)


def print_models(cards: Iterable[ModelCard]) -> None:
    """The models for sale, side by side; whether one is deprecated is told where any is."""
    cards = list(cards)
    priced = [f"micros {'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in KINDS]
    columns = ["model", "dimensions", *priced, "currency", "fingerprint"]
    rows: list[list[object]] = [
        [
            *(_named(c, cards), c.dimensions, *c.prices.by_kind.values()),
            *(c.currency or "", c.fingerprint),
        ]
        for c in cards
    ]
    if any(card.batch_prices for card in cards):
        columns += ["with --batch"]
        for row, card in zip(rows, cards, strict=True):
            bulk = card.batch_prices
            row.append("" if bulk is None else " and ".join(map(str, bulk.by_kind.values())))
    if any(card.deprecated_at for card in cards):
        columns += ["deprecated", "sold until"]
        for row, card in zip(rows, cards, strict=True):
            row += [_date(card.deprecated_at), _date(card.sunset_at)]
    print_table(columns, rows)


def print_batches(jobs: Iterable[BatchObject]) -> None:
    """Bulk jobs: how far they are, and what they cost."""
    columns = ["job", "status", "requests", "done", "failed", "micros", "held", "begun"]
    rows: list[list[object]] = []
    for job in jobs:
        counts = job.request_counts
        rows.append(
            [
                *(job.id, job.status, counts.total, counts.completed, counts.failed),
                *(job.cost_micros, job.held_micros, time_of(job.created_at, "%Y-%m-%d %H:%M")),
            ]
        )
    print_table(columns, rows)


def _named(card: ModelCard, among: Sequence[ModelCard]) -> str:
    return f"{card.id} (default)" if card.default and len(among) > 1 else card.id


def _date(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d}"


def print_usage(found: "AccountUsage") -> None:
    """Print an account's usage, its bills, and its remaining limits."""
    account, used = found.account, found.usage
    cost = "cost (micros)" if used.currency is None else f"cost (millionths of {used.currency})"
    columns = (used.group_by, "requests", *KINDS.values(), "billed queries", cost)
    print_table(
        columns,
        [
            (r.group, r.requests, *r.counts.values(), r.billed_queries, r.cost_micros)
            for r in [*used.rows, used.total]
        ],
    )
    left = (
        "no quota" if account.quota_left is None else f"{account.quota_left} of {account.quota} queries left"
    )
    print_line(f"Account {account.account}: {left}, {_cost(account.spent_micros, account.currency)} spent.")
