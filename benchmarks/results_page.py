"""docs/results.md, into which some benchmarks write their tables themselves."""

from benchmarks.records import ROOT

RESULTS = ROOT / "docs" / "results.md"
_END = "<!-- until here -->"


def written(page: str, command: str, tables: str) -> str:
    """A page with other tables between the marks of a command.

    Raises:
        SystemExit: it has no such marks.
    """
    begin = f"<!-- {command} writes what follows -->"
    head, _, rest = page.partition(begin)
    _, mark, tail = rest.partition(_END)
    if not mark:
        raise SystemExit(f"there is no {begin}")
    return f"{head}{begin}\n\n{tables}\n\n{_END}{tail}"


def write(command: str, tables: str) -> None:
    """Write the tables of a command into docs/results.md, in the place of its former ones."""
    page = written(RESULTS.read_text(encoding="utf-8"), command, tables)
    RESULTS.write_text(page, encoding="utf-8")
