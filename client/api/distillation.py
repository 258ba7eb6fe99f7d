"""One run, and the student that it ends in."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from client.api.checks import chosen_device, require_outside
from client.api.confirm import Confirm, purchases, replacements
from client.api.connection import connect
from client.api.settling import run_config
from client.api.students import Student, load_student
from client.data.domains import ImageFolder, list_folder
from client.data.manifests import styles_of
from client.data.splits import Split
from client.errors import UsageError
from client.learning.methods import method_of
from client.learning.processes import Processes, launched
from client.options.training import DistillOptions
from client.progress import Display, ProgressListener
from client.purchase.teacher import Teacher
from client.results.records import Plan, Purchase, Summary
from client.runs.cells import as_file_name
from client.runs.config import RunConfig
from client.runs.connection import Connection
from client.runs.dataset import DomainInputs, PoolInputs
from client.runs.distillation import Distillation
from client.runs.folder import RunFolder, WatchedRun
from client.runs.generations import first_weights
from client.runs.memo import Memo
from client.runs.pages import write_pages
from client.runs.trainer import FeatureInputs


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
        """What it came to: `summary.json`.

        Raises:
            ClientError: it has not finished.
        """
        return self._folder.record(Summary, self._folder.summary)

    @property
    def plan(self) -> Plan:
        """What it used and bought: `plan.json`.

        Raises:
            ClientError: it has not planned yet.
        """
        return self._folder.record(Plan, self._folder.plan)

    @property
    def purchase(self) -> Purchase | None:
        """What it paid: `purchase.json`; `None` where nothing was bought.

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
    config = run_config(options)
    if options.budget is None and method_of(config.method).buys:
        raise UsageError(
            "Say how many queries may be paid for: --budget N. `client plan` shows how many it takes."
        )
    path = options.out or config.usual_folder
    require_outside(path, options.labelled)
    without = _left_out_in_turn(config, path) if options.leave_one_out else {}
    with launched(chosen_device(options.device)) as (processes, device):
        connection = connect(options, progress)
        if processes.is_main:
            _lead(options, config, path, without, connection, confirm, processes, device)
        else:
            for each, folder in (*without.values(), (config, path)):
                Distillation(
                    each, WatchedRun(folder), None, Display.of_nobody(),
                    device=device, pixels=connection.pixels, in_turn=folder != path, processes=processes,
                ).execute()  # fmt: skip
    return Run(path=path, is_first=processes.is_main)


def load_run(path: Path | str) -> Run:
    """A run that was made before.

    Raises:
        ClientError: there is no run in this folder.
    """
    folder = RunFolder(Path(path))
    folder.read(folder.config)
    return Run(path=folder.path)


def _lead(
    options: DistillOptions,
    config: RunConfig,
    path: Path,
    without: Mapping[str, tuple[RunConfig, Path]],
    connection: Connection,
    confirm: Confirm | None,
    processes: Processes,
    device: str,
) -> None:
    """Take a run to its end, as the first of the processes, and before it those that leave a domain out.

    These learn from what the run itself buys, and buy nothing.
    """
    run = RunFolder(path)
    run_id = run.begin(config)
    agree = replacements(replace=options.replace, confirm=confirm)
    memo = Memo({DomainInputs: 1000, PoolInputs: 1000, FeatureInputs: 0}, connection.files)
    with ExitStack() as stack:
        stack.enter_context(run.claimed())
        teacher = None
        if method_of(config.method).buys:
            teacher = stack.enter_context(connection.teacher(run_id=run_id, budget=options.budget, run=run))

        fixed_splits: Mapping[Path, Split] = {}

        def distillation(config: RunConfig, run: RunFolder, teacher: Teacher | None) -> Distillation:
            return Distillation(
                config, run, teacher, connection.display, device=device, pixels=connection.pixels,
                approve=purchases(agreed=options.agreed, confirm=confirm), agree=agree,
                memo=memo, fixed_splits=fixed_splits, in_turn=run.path != path, processes=processes,
            )  # fmt: skip

        whole = distillation(config, run, teacher)
        ids: dict[str, str] = {}
        if without:
            dataset = whole.check()
            if dataset.seen.images.size:  # otherwise they draw the same by themselves
                fixed_splits = {dataset.examples[position].path: "train" for position in dataset.train}
            for domain, (each, folder) in without.items():  # before anything is bought
                connection.display.note(f"Checking what is left without {domain} ...")
                distillation(each, RunFolder(folder), teacher).check()
            # A name may be too long for a folder.
            ids = {domain: RunFolder(folder).begin(each) for domain, (each, folder) in without.items()}
            whole.prepare()
        accuracies = {}
        for domain, (each, folder) in without.items():
            connection.display.note(f"Leaving out {domain} ...")
            own = None if teacher is None else teacher.for_run(ids[domain], budget=0)
            summary = distillation(each, RunFolder(folder), own).execute()
            assert summary is not None
            accuracies[domain] = summary.accuracy.by_domain[domain]
        whole.execute(leave_one_out=accuracies)


def _left_out_in_turn(config: RunConfig, path: Path) -> dict[str, tuple[RunConfig, Path]]:
    """For each domain, the run that leaves it out, and its folder inside the run's own.

    They begin with weights that have seen no domain: not with those of a former student. To them, images of
    the domain where the student will work are images without labels like others: it is not what they leave
    out.

    Raises:
        UsageError: a domain is held out already, there is only one, or they would ask what the run itself
            does not.
    """
    folder = list_folder(config.data)
    domains = folder.domains
    if config.target_domain is not None or len(domains) < 2:
        raise UsageError(
            "--leave-one-out leaves every domain out in turn: it takes at least two domains, and no "
            "--target-domain."
        )
    _require_same_styles(config, folder)
    first = first_weights(config.student_weights)
    unseeing = config.changed(student_weights=first, unlabelled=config.pools, adapt=())
    folders = path / "leave-one-out"
    return {
        domain: (unseeing.changed(target_domain=domain), folders / as_file_name(domain)) for domain in domains
    }


def _require_same_styles(config: RunConfig, folder: ImageFolder) -> None:
    """Refuse a method that asks about classes in styles, where a student of fewer domains asks about others.

    Nobody would buy these texts: such a student learns from what the run itself buys.

    Raises:
        UsageError: it does.
    """
    rest, asked = folder.domains[1:], styles_of(folder, folder.domains)
    if method_of(config.method).prompts.styled is not None and not set(styles_of(folder, rest)) <= set(asked):
        raise UsageError(
            f"--leave-one-out leaves one domain of two to learn from, and of one alone {config.method} asks "
            "other texts than of both, which this run does not buy. Leave out --leave-one-out, or take "
            "another --method."
        )
