"""How far a verification is, on a terminal."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A bar on standard error from the first entry on, if that is a terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, account: str, entries: int, more: int) -> None:
        """Show that so many of all entries more were verified."""
        if not sys.stderr.isatty():
            return
        if self._progress is None:
            self._progress = _begun()
        self._progress.update(self._progress.task_ids[0], description=account, advance=more, total=entries)


def _begun() -> "Progress":
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("entries"))
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.add_task("verifying", total=None)
    progress.start()
    return progress
