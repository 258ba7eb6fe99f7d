"""One run: what it would cost, and the student that it ends in."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from client.api.checks import chosen_device, require_file, require_outside
from client.api.confirm import Confirm, purchases, replacements
from client.api.connection import connect
from client.api.options import DistillOptions, TrainingOptions
from client.api.students import Student, load_student
from client.buying.teacher import Teacher
from client.data.domains import composed, list_folder
from client.data.finder import require_name
from client.data.splits import Split
from client.errors import ClientError, UsageError
from client.learning.backbone_names import OPEN_CLIP
from client.learning.backbones import native_image_size
from client.learning.methods import METHODS, Method, parse_method, with_steps
from client.learning.processes import Processes, launched
from client.learning.recipe import RECIPES, Recipe
from client.learning.student import load_metadata
from client.paths import resolved
from client.progress import Display, ProgressListener
from client.results.records import Plan, Purchase, Record, Summary, TeacherCheck
from client.runs import forecast
from client.runs.connection import Connection
from client.runs.dataset import Dataset, DomainInputs, read_dataset
from client.runs.distillation import Distillation
from client.runs.features import training_features
from client.runs.folder import RunConfig, RunFolder, WatchedRun, default_run_path
from client.runs.generations import first_weights
from client.runs.memo import Memo
from client.runs.mentions import mention_skipped
from client.runs.pages import write_pages
from client.runs.plans import describe_outlook, describe_plan
from client.runs.teacher_queries import teacher_queries

R = TypeVar("R", bound=Record)


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
        return self._record(Summary, self._folder.summary)

    @property
    def plan(self) -> Plan:
        """What it used and bought: `plan.json`.

        Raises:
            ClientError: it has not planned yet.
        """
        return self._record(Plan, self._folder.plan)

    @property
    def purchase(self) -> Purchase | None:
        """What it paid: `purchase.json`; `None` where nothing was bought.

        Raises:
            ClientError: the file is damaged.
        """
        file = self._folder.purchase
        return self._record(Purchase, file) if file.exists() else None

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

    def _record(self, kind: type[R], file: Path) -> R:
        try:
            return kind.model_validate(self._folder.read(file))
        except ValidationError as error:
            raise ClientError(f"{file} is not what this version of Tuition writes: {error}") from error


def plan(
    options: DistillOptions,
    *,
    probe: int = 0,
    confirm: Confirm | None = None,
    progress: ProgressListener | None = None,
) -> Plan:
    """What a run would use, buy and cost; writes nothing, and spends nothing without a `probe`.

    Args:
        options: the run. A `budget` of `None` is no limit here. Where `out` holds the run already, what it
            has paid counts, and it goes on with its model.
        probe: how many of the run's first queries to buy now, for `Plan.teacher_check`. The run finds them in
            the cache.
        confirm: is asked whether a probe of more than five units may be bought, unless the options say so.
        progress: is told how the work goes on.

    Raises:
        UsageError: an option or the image folder is not what a run needs.
        VendorError: the vendor does not answer, or refuses.
    """
    config, connection = config_of(options), connect(options, progress)
    run = None if options.out is None else RunFolder(options.out)
    run_id = (None if run is None else run.id_of(config)) or "plan"
    display = connection.display
    dataset = read_dataset(config, display, Memo(files=connection.files))
    planned = describe_plan(config, dataset, None, None)
    if _method(config).buys:
        device = chosen_device("auto")
        features = training_features(config, dataset, display, device=device, pixels=connection.pixels)
        budget, max_spend_micros = options.budget, options.max_spend_micros
        with connection.teacher(
            run_id=run_id, budget=budget, max_spend_micros=max_spend_micros, run=run
        ) as teacher:
            checked = _probed(options, config, dataset, teacher, probe, confirm) if probe else None
            purchase = teacher.plan(teacher_queries(config, dataset, features).tranches(dataset))
            outlook = describe_outlook(teacher.outlook(purchase.to_buy))
            planned = describe_plan(config, dataset, teacher.model, purchase, outlook)
        planned = planned.model_copy(update={"teacher_check": checked})
    mention_skipped(dataset.skipped, dataset.folder.root, display, listed_in="--json")
    return planned


def dry_run(options: DistillOptions, *, progress: ProgressListener | None = None) -> Plan:
    """What `distill` would still use, buy and cost by the same options; writes and spends nothing.

    Raises:
        UsageError: an option, the image folder or the run's folder is not what a run needs.
        VendorError: the vendor does not answer, or refuses.
    """
    path = options.out or default_run_path(config_of(options))
    return plan(options.model_copy(update={"out": path}), progress=progress)


def _probed(
    options: DistillOptions,
    config: RunConfig,
    dataset: Dataset,
    teacher: Teacher,
    queries: int,
    confirm: Confirm | None,
) -> TeacherCheck | None:
    """Buy the first queries of a run; what was bought of this teacher for the same run counts among them."""
    most = options.max_spend_micros
    approve = purchases(yes=options.yes, max_spend_micros=most, confirm=confirm)
    told = (dataset.content, dataset.classes, config.method, config.seed, teacher.model.fingerprint)
    run_id = f"probe-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}"
    probing = teacher.for_run(run_id, budget=queries, max_spend_micros=most)
    return forecast.probe(config, dataset, probing, queries, approve)


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
    config = config_of(options)
    if options.budget is None and _method(config).buys:
        raise UsageError(
            "Say how many queries may be paid for: --budget N. `client plan` shows how many it takes."
        )
    path = options.out or default_run_path(config)
    require_outside(path, options.data)
    without = _left_out_in_turn(config, path) if options.leave_one_out else {}
    with launched(chosen_device(options.device)) as (processes, device):
        connection = connect(options, progress)
        if processes.is_main:
            _lead(options, config, path, without, connection, confirm, processes, device)
        else:
            for each, folder in (*without.values(), (config, path)):
                Distillation(
                    each, WatchedRun(folder), None, Display.of_nobody(),
                    device=device, pixels=connection.pixels, processes=processes,
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
    budget, max_spend_micros = options.budget, options.max_spend_micros
    agree = replacements(replace=options.replace, confirm=confirm)
    memo = Memo({DomainInputs: 1000}, connection.files)
    with ExitStack() as stack:
        stack.enter_context(run.claimed())
        teacher = None
        if _method(config).buys:
            teacher = stack.enter_context(
                connection.teacher(run_id=run_id, budget=budget, max_spend_micros=max_spend_micros, run=run)
            )

        told: Mapping[Path, Split] = {}

        def distillation(config: RunConfig, run: RunFolder, teacher: Teacher | None) -> Distillation:
            return Distillation(
                config, run, teacher, connection.display, device=device, pixels=connection.pixels,
                approve=purchases(yes=options.yes, max_spend_micros=max_spend_micros, confirm=confirm),
                agree=agree, memo=memo, told=told, processes=processes,
            )  # fmt: skip

        whole = distillation(config, run, teacher)
        if without:
            dataset = whole.prepare()
            if dataset.seen.images.size:  # otherwise they draw the same by themselves
                told = {dataset.examples[position].path: "train" for position in dataset.train}
        accuracies = {}
        for domain, (each, folder) in without.items():
            connection.display.note(f"Leaving out {domain} ...")
            other = RunFolder(folder)
            other_id = other.begin(each)
            own = None if teacher is None else teacher.for_run(other_id, budget=0)
            summary = distillation(each, other, own).execute()
            assert summary is not None
            accuracies[domain] = summary.accuracy.by_domain[domain]
        whole.execute(leave_one_out=accuracies)


def _left_out_in_turn(config: RunConfig, path: Path) -> dict[str, tuple[RunConfig, Path]]:
    """For each domain, the run that leaves it out, and its folder inside the run's own.

    They begin with weights that have seen no domain: not with those of a former student.

    Raises:
        UsageError: a domain is held out already, or there is only one.
    """
    domains = list_folder(Path(config.data)).domains
    if config.target_domain is not None or len(domains) < 2:
        raise UsageError(
            "--leave-one-out leaves every domain out in turn: it takes at least two domains, and no "
            "--target-domain."
        )
    unseeing = replace(config, student_weights=first_weights(config.student_weights))
    return {
        domain: (replace(unseeing, target_domain=domain), path / "leave-one-out" / quote(domain, safe=""))
        for domain in domains
    }


def next_options(run: Path | str, **changes: Any) -> DistillOptions:  # noqa: ANN401 (as each option has it)
    """The options of a run's next generation: another student, from the last one's weights.

    Everything is as it was there: images, domain held out, method, student, seed. Images without labels are
    those of then and those of `changes` together. The folder is named after the run's, with a number. Images
    that the last student was trained on are not held out, and refused in a target domain. With
    `leave_one_out`, the students that measure begin as the first generation did, for the last one's weights
    have seen every domain.

    Args:
        run: the folder of a finished run.
        changes: options that are given another value, by their names in `DistillOptions`.

    Raises:
        ClientError: there is no finished run.
    """
    before = RunFolder(Path(run))
    config = before.read_config()
    load_metadata(before.student)
    said: dict[str, Any] = {
        "data": config.data, "target_domain": config.target_domain, "method": config.method,
        "student": config.student, "image_size": config.image_size, "seed": config.seed,
        "select": config.select, "recipe": config.recipe, "group_by_name": config.group_by_name,
        "out": _numbered_on(before.path),
    }  # fmt: skip
    if not config.student.startswith(OPEN_CLIP):  # a CLIP's weights go with its own texts
        said["student_weights"] = before.student
    pools = {
        name: (*getattr(config, name), *pool_words(changes.pop(name, ()))) for name in ("unlabelled", "adapt")
    }
    return DistillOptions(**{**said, **changes, **pools})


def _numbered_on(folder: Path) -> Path:
    """The name of the generation after that in a folder: icons, icons-2, icons-3."""
    folder = resolved(folder)
    stem, number = folder.name, 1
    if found := re.fullmatch(r"(.+)-(\d{1,4})", folder.name):
        stem, number = found[1], int(found[2])
    return folder.with_name(f"{stem}-{number + 1}")


def config_of(options: DistillOptions) -> RunConfig:
    """What makes a run this run and no other.

    Raises:
        UsageError: a file, a student or a method is not there.
    """
    image_size = student_image_size(options)
    recipe = with_steps(recipe_of(options), options.method, options.steps)
    method, recipe = parse_method(options.method, recipe)
    if (options.unlabelled or options.adapt) and not method.learns_unlabelled:
        able = ", ".join(each.name for each in METHODS.values() if each.learns_unlabelled)
        raise UsageError(
            f"The method {method.name} learns from labelled images alone: leave out --unlabelled and "
            f"--adapt, or take one of {able}."
        )
    weights = options.student_weights
    return RunConfig(
        data=str(resolved(options.data)),
        target_domain=None if options.target_domain is None else composed(options.target_domain),
        method=options.method,
        student=options.student,
        image_size=image_size,
        seed=options.seed,
        select=options.select,
        recipe=recipe,
        student_weights=None if weights is None else str(resolved(weights)),
        group_by_name=options.group_by_name,
        unlabelled=pool_words(options.unlabelled),
        adapt=pool_words(options.adapt),
    )


def pool_words(words: Sequence[str | Path]) -> tuple[str, ...]:
    """Where unlabelled images are, wherever the command is run from.

    Raises:
        UsageError: a name is empty.
    """
    for word in words:
        require_name(str(word))
    return tuple(str(Path(word).absolute()) for word in words)


def student_image_size(options: TrainingOptions) -> int:
    """Side of the student's input in pixels.

    Raises:
        UsageError: the student's weights are not a file, or nobody knows its name.
    """
    require_file("--student-weights", options.student_weights)
    native = native_image_size(options.student)  # asked in any case: it refuses a name that nobody knows
    return options.image_size or native


def recipe_of(options: TrainingOptions) -> Recipe:
    """The recipe that is meant, without the method's variants."""
    recipe = options.recipe if isinstance(options.recipe, Recipe) else RECIPES[options.recipe]
    return recipe if options.views is None else replace(recipe, views=options.views)


def _method(config: RunConfig) -> Method:
    return parse_method(config.method, config.recipe)[0]
