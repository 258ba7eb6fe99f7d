"""One run, and the student that it ends in."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from client.api.checks import require_outside
from client.api.confirm import Confirm, purchases, replacements
from client.api.settling import run_config, with_files
from client.api.students import Student, load_student
from client.errors import UsageError
from client.learning.methods import method_of
from client.learning.processes import launched
from client.options.training import DistillOptions
from client.progress import ProgressListener
from client.results.frames import data_frame
from client.results.predictions import read_predictions
from client.results.records import Plan, Purchase, Summary
from client.runs.connection import Connection
from client.runs.context import RunContext
from client.runs.dataset import DomainInputs, PoolInputs
from client.runs.folder import RunFolder
from client.runs.leave_one_out import WholeRun
from client.runs.memo import Memo
from client.runs.pages import card_of, write_pages
from client.runs.trainer import FeatureInputs

if TYPE_CHECKING:
    from pandas import DataFrame


class Run(BaseModel):
    """A run in its folder.

    Attributes:
        path: the folder.
        is_first: whether this process wrote it. Under a launcher of several processes (torchrun), the
            others help to train and return before the run is evaluated.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    is_first: bool = True

    @property
    def summary(self) -> Summary:
        """The results: `summary.json`.

        Raises:
            ClientError: it has not finished.
        """
        return self._folder.record(Summary, self._folder.summary)

    @property
    def plan(self) -> Plan:
        """The images and queries of the run: `plan.json`.

        Raises:
            ClientError: it has not planned yet.
        """
        return self._folder.record(Plan, self._folder.plan)

    @property
    def purchase(self) -> Purchase | None:
        """The payment: `purchase.json`; `None` where nothing was bought.

        Raises:
            ClientError: the file is damaged.
        """
        folder = self._folder
        return folder.record(Purchase, folder.purchase) if folder.purchase.exists() else None

    @property
    def report(self) -> Path:
        """The report for people, an HTML page."""
        return self._folder.report

    @property
    def weights(self) -> Path:
        """The student's file, `student.safetensors`."""
        return self._folder.student

    def student(self, device: str = "auto") -> Student:
        """The student.

        Raises:
            ClientError: there is none yet.
            UsageError: there is no such device.
        """
        return load_student(self.path, device=device)

    def write_report(self) -> Path:
        """Write the report and the model card again, and return where the report is.

        Raises:
            ClientError: the run has not finished, or the folder cannot be written.
        """
        write_pages(self._folder, self.summary)
        return self.report

    def to_pandas(self) -> "DataFrame":
        """A row an image that it was not trained on, with the student's answer: `answers.csv`.

        Raises:
            ClientError: it has not finished.
            UsageError: pandas is not installed.
        """
        return data_frame(map(asdict, read_predictions(self._folder.answers)))

    def _repr_html_(self) -> str | None:
        """The report in short; until it has finished its plan, if it has one."""
        if self._folder.summary.exists():
            return card_of(self._folder, self.summary)
        return self.plan._repr_html_() if self._folder.plan.exists() else None

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.path)


def distill(
    options: DistillOptions, *, confirm: Confirm | None = None, progress: ProgressListener | None = None
) -> Run:
    """Train a student, taught by the vendor's model, and test it on the domain that is held out, if one is.

    The same options resume an interrupted run, and never pay twice.

    Args:
        options: the run. A method that buys takes a `budget`.
        confirm: is asked whether a purchase of more than five units may begin, and whether a finished
            student may be replaced, unless the options say so. Without it both are refused.
        progress: is told how the work goes on.

    Raises:
        UsageError: an option or the image folder is not what the run needs, or nobody agreed.
        SpendingStopped: a limit was reached; the same options with a larger one go on from there.
        ClientError: see client/errors.py; what was bought and trained so far is kept.
    """
    options = with_files(options, progress)
    config = run_config(options)
    if options.budget is None and method_of(config.method).buys:
        raise UsageError(
            "Say how many queries may be paid for: --budget N. `client plan` shows how many it takes."
        )
    path = options.out or config.usual_folder
    require_outside(path, options.labelled)
    with launched(options.device) as (processes, device):
        connection = Connection(options, progress)
        context = RunContext(
            connection.display,
            device,
            connection.pixels,
            Memo({DomainInputs: 1000, PoolInputs: 1000, FeatureInputs: 0}, connection.files),
            processes,
            approve=purchases(agreed=options.agreed, confirm=confirm),
            agree=replacements(replace=options.replace, confirm=confirm),
        )
        run = WholeRun(config, path, connection, context, options.budget)
        run.execute(leave_one_out=options.leave_one_out)
    return Run(path=path, is_first=processes.is_main)


def load_run(path: Path | str) -> Run:
    """A run that was made before.

    Raises:
        ClientError: there is no run in this folder.
    """
    folder = RunFolder(Path(path))
    folder.read(folder.config)
    return Run(path=folder.path)
