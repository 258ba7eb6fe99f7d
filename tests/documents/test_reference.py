"""docs/cli.md says of the command lines what they are."""

from tests.documents.reference import REFERENCE, reference


def test_the_reference_of_the_command_lines_is_current() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "docs/cli.md is out of date: make reference"


def test_it_has_commands_in_groups_and_their_options() -> None:
    page = reference()
    assert "### vendor keys create\n" in page
    assert "| `--select stratified\\|random\\|coverage` |" in page
    assert "| `--seed INTEGER` | Of splits, batches and views. (default: `0`) |" in page
    assert "| `--target-domain TEXT` | The domain to hold out and be tested on. (required) |" in page
