"""Writes the pages of the documents that are made from the code.

    make reference

`make check` asks with `--check` whether they are current, and writes none.

docs/cli.md is made from the help texts, docs/python-api.md from the docstrings, docs/files.md and the schemas
beside it from the records of a run.
"""

import argparse
import sys
from pathlib import Path

from tests.documents import commands, python_api, run_files

DOCS = Path(__file__).resolve().parents[2] / "docs"


def pages() -> dict[Path, str]:
    """Each file that is made from the code, and what is in it."""
    return {
        DOCS / "cli.md": commands.command_page(),
        DOCS / "python-api.md": python_api.api_page(),
        **run_files.pages(DOCS),
    }


def outdated(made: dict[Path, str]) -> list[str]:
    """Files under `docs/` that are not what the code makes of them."""
    return [
        str(path.relative_to(DOCS))
        for path, text in made.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main() -> None:
    """Write them, or end with 1 where `--check` finds one that is not current."""
    parser = argparse.ArgumentParser(description="Write the pages that are made from the code.")
    parser.add_argument("--check", action="store_true", help="Write none; name those that are out of date.")
    only_check = parser.parse_args().check
    made = pages()
    if only_check:
        old = outdated(made)
        if old:
            sys.exit(f"Out of date, run make reference: {', '.join(old)}")
        print(f"Reference: {len(made)} pages, as the code makes them.")
        return
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"Wrote {path.relative_to(DOCS.parent)}.")


if __name__ == "__main__":
    main()
