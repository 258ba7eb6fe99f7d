"""CHANGELOG.md begins with the project's version, and gives the notes of a release."""

import pytest

from tools.changelog import ROOT, main, notes, project_version, versions

TWO = """\
# Changelog

## [1.1.0] - Unreleased

### Added

- A second thing.

## [1.0.0] - 2026-12-01

### Added

- A first thing, as in [1.1.0].
"""


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    found = versions((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert next(iter(found)) == project_version()


def test_notes_are_the_section_of_a_version() -> None:
    assert versions(TWO) == {"1.1.0": "Unreleased", "1.0.0": "2026-12-01"}
    assert notes(TWO, "1.1.0") == "### Added\n\n- A second thing.\n"
    assert notes(TWO, "1.0.0") == "### Added\n\n- A first thing, as in [1.1.0].\n"


@pytest.mark.parametrize(
    "text", ["## Unreleased\n", "## [1.0.0] - soon\n", "## [1.0.0] - Unreleased\n\n## [1.0.0] - 2026-12-01\n"]
)
def test_a_heading_that_is_no_version_and_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"changelog|date"):
        versions(text)


def test_the_command_prints_the_notes_or_names_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("### Added\n")
    assert main(["0.0.0"]) == 1
    assert f"no 0.0.0; it has {project_version()}" in capsys.readouterr().err
