"""A run as two pages: `report.html` for people, `README.md` as the model card beside the weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

Row = Mapping[str, Any]


def render_report(summary: Row, plan: Row, metrics: Sequence[Row]) -> str:
    """The report as one self-contained HTML page.

    Args:
        summary: `summary.json`.
        plan: `plan.json`.
        metrics: the rows of `metrics.jsonl`.
    """
    evaluated = [row for row in metrics if row["stage"] == "distill" and "holdout_accuracy" in row]
    page = _environment().get_template("report.html")
    return page.render(**_shared(summary, plan), evaluated=evaluated)


def render_model_card(summary: Row, plan: Row) -> str:
    """The model card in Markdown; arguments as for `render_report`."""
    page = _environment().get_template("model_card.md")
    return page.render(**_shared(summary, plan))


def _shared(summary: Row, plan: Row) -> dict[str, Any]:
    first, last = summary["steps_kept"]
    kept = f"the state after step {last} was best on the source hold-outs and is the one saved"
    if first < last:
        kept = f"the mean of the states after steps {first} to {last} is the one saved (SWAD)"
    return {"summary": summary, "plan": plan, "domains": _domains(summary, plan), "kept": kept}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("client.results"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    environment.filters["units"] = lambda micros: f"{micros / 1_000_000:.4f}"
    return environment


def _domains(summary: Row, plan: Row) -> list[Row]:
    """The domains in the order in which they are shown: sources first, the target last."""
    accuracy = summary["accuracy"]
    names = [*plan["source_domains"], summary["target_domain"]]
    return [
        {
            "name": name,
            "seen": name != summary["target_domain"],
            "accuracy": accuracy["by_domain"][name],
            "images": accuracy["images_by_domain"][name],
        }
        for name in names
    ]
