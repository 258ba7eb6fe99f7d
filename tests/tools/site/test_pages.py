"""The pages that are made from the code have what they are made of."""

from pathlib import Path

import pytest
import yaml

import tuition
from tools.site.hooks import DOCS, PAGES, ROOT
from tools.site.pages import REFERENCES, made_pages
from tools.site.run_files import faults


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return made_pages()


def test_every_page_has_its_place_in_the_menu_and_every_reference_its_heading(made: dict[str, str]) -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    pages = {page for part in listed for each in part.values() for page in _below(each)}
    assert pages == {each.name for each in DOCS.glob("*.md")} | {*PAGES, *REFERENCES.values()}
    assert {name for name in made if name.endswith(".md")} == {*REFERENCES.values()}


def _below(part: object) -> list[str]:
    if isinstance(part, str):
        return [part]
    assert isinstance(part, list)
    return [page for each in part for value in each.values() for page in _below(value)]


def test_a_command_in_a_group_and_its_options_are_in_the_page(made: dict[str, str]) -> None:
    page = made["commands.md"]
    assert "### vendor keys create\n" in page
    assert "| `--seed INTEGER` | " in page
    assert r"`--log-format text\|json`" in page
    assert "(required) |" in page


def test_everything_that_the_client_offers_is_in_the_page_of_its_api(made: dict[str, str]) -> None:
    page = made["python-api.md"]
    assert all(f"### {name}\n" in page for name in dir(tuition))
    assert "tuition.load_run(path: Path | str) -> Run\n" in page
    assert "| `budget` | `int \\| None` | `None` | " in page
    assert "#### Student.predict\n" in page
    assert "- `SpendingStopped`: " in page
    assert "├── UsageError " in page


def test_a_record_and_its_parts_are_in_the_page_of_files(made: dict[str, str]) -> None:
    page = made["run-files.md"]
    assert "| `accuracy` | [Accuracy](#accuracy) | " in page
    assert "| `worst_domain` | text or null | " in page
    assert "schemas/summary.schema.json" in made


def test_every_route_of_operators_is_in_their_page(made: dict[str, str]) -> None:
    assert "| POST | `/admin/accounts/{account}/refunds` | " in made["operator-routes.md"]


def test_a_field_that_no_schema_has_and_a_value_of_another_type_are_found(tmp_path: Path) -> None:
    (tmp_path / "purchase.json").write_text('{"queries_bought": "3", "queries_cached": 0, "refused": [{}]}')
    (tmp_path / "metrics.jsonl").write_text('{"stage": "align", "step": 1}\n{"stage": "buy", "price": 2}\n')
    found = "\n".join(faults(tmp_path))
    assert "purchase.json: $.queries_bought: '3' is not of type 'integer'" in found
    assert "purchase.json: $: 'cost_micros' is a required property" in found
    assert "purchase.json: $.refused[0]: 'name' is a required property" in found
    assert "metrics.jsonl: $: Additional properties are not allowed ('price' was unexpected)" in found
