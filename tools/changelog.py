"""The notes of a release, from CHANGELOG.md.

    make release-notes VERSION=0.1.0

It prints what the changelog says of the version, or names the versions that it has and ends with 1.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SECTION = re.compile(
    r"^## \[(?P<version>[^]]+)\] - (?P<date>.+)\n(?P<text>(?:(?!## \[).*\n?)*)", re.MULTILINE
)
_RELEASED = re.compile(r"\d{4}-\d\d-\d\d")
UNRELEASED = "Unreleased"


def versions(changelog: str) -> dict[str, str]:
    """The versions of a changelog, the newest first, with their dates or the word "Unreleased".

    Raises:
        ValueError: a heading has another form than `## [VERSION] - DATE`.
    """
    found = {each["version"]: each["date"].strip() for each in _SECTION.finditer(changelog)}
    if len(found) != len(re.findall("^## ", changelog, re.MULTILINE)):
        raise ValueError(
            "A heading of the changelog is not of the form `## [VERSION] - DATE`, or is there twice."
        )
    wrong = [date for date in found.values() if date != UNRELEASED and not _RELEASED.fullmatch(date)]
    if wrong:
        raise ValueError(f"The date of a version is YYYY-MM-DD or Unreleased, and not {wrong[0]}.")
    return found


def notes(changelog: str, version: str) -> str:
    """The notes of a changelog on a version.

    Raises:
        KeyError: it does not have the version.
    """
    found = {each["version"]: each["text"] for each in _SECTION.finditer(changelog)}
    return found[version].strip() + "\n"


def project_version() -> str:
    """The version in pyproject.toml."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def main(arguments: list[str]) -> int:
    """Print the notes of the version that is named, or of the project's own."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = arguments[0] if arguments else project_version()
    try:
        print(notes(changelog, version), end="")
    except KeyError:
        print(f"CHANGELOG.md has no {version}; it has {', '.join(versions(changelog))}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
