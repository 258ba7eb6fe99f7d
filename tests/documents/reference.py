"""Writes the pages of the documents that are made from the code.

    make reference

docs/cli.md is made from the help texts, docs/python-api.md from the docstrings, docs/files.md and the schemas
beside it from the records of a run.
"""

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


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"Wrote {path.relative_to(DOCS.parent)}.")


if __name__ == "__main__":
    main()
