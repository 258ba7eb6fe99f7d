"""The pages that are made from the code say what the code is."""

from pathlib import Path

import pytest

from tests.documents.reference import DOCS, outdated, pages
from tests.documents.run_files import faults


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return pages()


def test_every_page_that_is_made_from_the_code_is_current(made: dict[Path, str]) -> None:
    assert not outdated(made), "out of date: make reference"
    assert {*(DOCS / "schemas").iterdir()} <= {*made}, "a schema of a file that there is no more"


def test_a_command_in_a_group_and_its_options_are_in_the_page(made: dict[Path, str]) -> None:
    page = made[DOCS / "cli.md"]
    assert "### vendor keys create\n" in page
    assert "| `--select stratified\\|random\\|coverage` |" in page
    assert "| `--seed INTEGER` | Seed of splits, batches and views. (default: `0`) |" in page
    assert "| `--out PATH` | FILE.npy, FILE.parquet or FILE.jsonl. (required) |" in page


def test_functions_options_methods_and_errors_are_in_the_page_of_the_python_api(
    made: dict[Path, str],
) -> None:
    page = made[DOCS / "python-api.md"]
    assert "client.load_run(path: Path | str) -> Run\n" in page
    assert "| `budget` | `int \\| None` | `None` | queries that may be newly paid for" in page
    assert "| `vendor` | `str` |  | the vendor's URL" in page  # of a base class
    assert "#### Student.predict\n" in page
    assert "- `SpendingStopped`: a limit was reached" in page
    assert "├── UsageError " in page


def test_a_record_and_its_parts_are_in_the_page_of_files(made: dict[Path, str]) -> None:
    page = made[DOCS / "files.md"]
    assert "| `accuracy` | [Accuracy](#accuracy) | of the student |\n" in page
    assert "| `worst_domain` | text or null | the domain with the lowest; `null` where" in page
    assert "`null` for a method that buys nothing" in page


def test_a_field_that_no_schema_has_and_a_value_of_another_type_are_found(tmp_path: Path) -> None:
    (tmp_path / "purchase.json").write_text('{"queries_bought": "3", "queries_cached": 0, "refused": [{}]}')
    (tmp_path / "metrics.jsonl").write_text('{"stage": "align", "step": 1}\n{"stage": "buy", "price": 2}\n')
    found = "\n".join(faults(tmp_path))
    assert "purchase.json: $.queries_bought: '3' is not of type 'integer'" in found
    assert "purchase.json: $: 'cost_micros' is a required property" in found
    assert "purchase.json: $.refused[0]: 'name' is a required property" in found
    assert "metrics.jsonl: $: Additional properties are not allowed ('price' was unexpected)" in found
