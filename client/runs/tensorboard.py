"""A run's log, shown in TensorBoard as well where that is installed."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from client.runs.folder import RunFolder

Row = Mapping[str, Any]


class TensorBoardLog:
    """Event files in a folder: a scalar `STAGE/NAME` a number and step."""

    def __init__(self, folder: Path) -> None:
        """Take up a folder.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._new_writer: Callable[[], Any] = partial(SummaryWriter, str(folder))
        self._folder = folder
        self._writer: Any = None

    def restart(self, rows: Iterable[Row]) -> None:
        """Begin anew with these rows: steps that are taken again are not there twice."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = self._new_writer()
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Log the numbers of a row that has a step."""
        if "step" in row:
            for name in row.keys() - {"stage", "step"}:
                self._writer.add_scalar(f"{row['stage']}/{name}", row[name], row["step"])

    def close(self) -> None:
        """Write what is not yet written."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def mirrored(run: RunFolder) -> Iterator[None]:
    """Meanwhile, what the run logs goes to TensorBoard as well, if that is installed."""
    try:
        log = TensorBoardLog(run.tensorboard)
    except ImportError:
        yield
        return
    log.restart(run.rows())
    run.mirror = log
    try:
        yield
    finally:
        run.mirror = None
        log.close()
