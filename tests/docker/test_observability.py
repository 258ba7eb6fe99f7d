"""The dashboard and the alerts: every series and label that they ask for is one that `GET /metrics` has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from tests.vendor_service.local_vendor import LocalVendor, image_input

FOLDER = Path(__file__).resolve().parents[2] / "docker" / "observability"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "tuition.json"

# What Prometheus itself adds: a series for each target, and where a series came from.
UP, TARGET = "up", {"job", "instance"}
ON_CUDA = {"tuition_gpu_memory_bytes": {"device", "state"}}
# In PromQL: strings, then durations and what `by` and `on` group by; what is left is series and functions.
STRING = re.compile(r'"[^"]*"')
ASIDE = re.compile(r"\[[^\]]*\]|\b(?:by|on)\s*\([^)]*\)")
SELECTOR = re.compile(r"\b([a-zA-Z_]\w*)\b(?!\s*\()(?:\{([^}]*)\})?")
WORDS = {"and", "or", "unless"}
MATCHER = re.compile(r'(\w+)\s*(?:=~|!=|!~|=)\s*"')

Series = dict[str, set[str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """The series of a vendor that has served and refused, each with its labels."""
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(folder, batch_store=str(folder / "files")) as vendor:
        vendor.embed(vendor.key(quota=10), {"text": "a cat"}, image_input(), {"image": "%"}, on_error="skip")
        vendor.embed(vendor.key(quota=0), {"text": "a cat"})
        told = vendor.http.get("/metrics").text
    series: Series = {UP: set()}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series | ON_CUDA


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that an expression names, with the labels that it is chosen by."""
    for name, matchers in SELECTOR.findall(ASIDE.sub("", STRING.sub('""', expression))):
        if name not in WORDS:
            yield name, set(MATCHER.findall(matchers))


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    return asked + [rule["expr"] for rule in rules()]


def test_every_series_that_is_asked_for_is_exported(exported: Series) -> None:
    asked = {expression: list(selectors(expression)) for expression in expressions()}
    assert all(asked.values())
    unknown = {
        (expression, name, *(labels - exported.get(name, set()) - TARGET))
        for expression, named in asked.items()
        for name, labels in named
        if not (name in exported and labels <= exported[name] | TARGET)
    }
    assert not unknown


# Fields of the data source's own query of annotations and variables, which the schema leaves open.
OF_THE_SOURCE = {"titleFormat", "textFormat", "definition"}


def test_grafana_s_own_schema_knows_every_field_of_the_dashboard() -> None:
    plugins.register_default_plugins()
    given = json.loads(DASHBOARD.read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
    assert {path for path in lost(given, read) if path.rpartition(".")[2] not in OF_THE_SOURCE} == set()


def lost(given: object, read: object, at: str = "") -> Iterator[str]:
    """Where what was read is less than what was given, or something else."""
    match given, read:
        case dict(), dict():
            for name, each in given.items():
                yield from lost(each, read[name], f"{at}.{name}") if name in read else [f"{at}.{name}"]
        case list(), list() if len(given) == len(read):
            for number, pair in enumerate(zip(given, read, strict=True)):
                yield from lost(*pair, f"{at}.{number}")
        case _:
            yield from [] if given == read else [at]


def test_panels_have_names_of_their_own_lie_side_by_side_and_use_the_source_that_is_provisioned() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + column, at["y"] + line) for column in range(at["w"]) for line in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    provisioned = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    used = {panel["datasource"]["uid"] for panel in panels() if "datasource" in panel}
    assert used == {source["uid"] for source in provisioned["datasources"]}


def test_every_alert_says_how_bad_it_is_and_what_happened() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    assert {"VendorNotReady", "QueueWait", "LedgerFaulty"} <= set(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"]["summary"]


def test_what_prometheus_extrapolates_is_told_in_whole_numbers() -> None:
    counted = [rule for rule in rules() if "increase(" in rule["expr"] or "rate(" in rule["expr"]]
    assert counted
    assert not [rule["alert"] for rule in counted if "{{ $value }}" in rule["annotations"]["summary"]]
