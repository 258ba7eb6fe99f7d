"""A run to its end, and before it the runs that leave each domain out in turn."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from client.data.domains import ImageFolder
from client.data.manifests import styles_of
from client.data.splits import Split
from client.errors import UsageError
from client.learning.methods import method_of
from client.progress import Display
from client.purchase.buyer import Buyer
from client.runs.config import RunConfig
from client.runs.connection import Connection
from client.runs.context import RunContext
from client.runs.dataset import listed
from client.runs.distillation import Distillation
from client.runs.file_names import as_file_name
from client.runs.folder import RunFolder, WatchedRun
from client.runs.generations import first_weights


@dataclass(frozen=True)
class _Without:
    """The run that leaves a domain out, and its folder inside the whole run's own."""

    domain: str
    config: RunConfig
    path: Path


class WholeRun:
    """A run as `client distill` takes it to its end.

    Args:
        config: the run.
        path: its folder.
        connection: where to buy.
        context: what it shares with the runs that leave a domain out.
        budget: queries that may be paid for.
    """

    def __init__(
        self,
        config: RunConfig,
        path: Path,
        connection: Connection,
        context: RunContext,
        budget: int | None,
    ) -> None:
        self._config = config
        self._path = path
        self._connection = connection
        self._context = context
        self._budget = budget

    def execute(self, *, leave_one_out: bool) -> None:
        """Run every stage that has not been run, in each of the processes that train together.

        Args:
            leave_one_out: whether students that are trained without a domain are to show what a new domain
                would get. They learn from what the run itself buys, and buy nothing.

        Raises:
            UsageError: the images do not allow to leave domains out.
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        parts = self._parts() if leave_one_out else []
        if self._context.processes.is_main:
            self._lead(parts)
        else:
            self._follow(parts)

    def _follow(self, parts: Sequence[_Without]) -> None:
        """Train together with the first process, which alone buys, evaluates and writes."""
        context = replace(self._context, display=Display.of_nobody())
        for part in parts:
            Distillation(part.config, WatchedRun(part.path), None, context, in_turn=True).execute()
        Distillation(self._config, WatchedRun(self._path), None, context).execute()

    def _lead(self, parts: Sequence[_Without]) -> None:
        run = RunFolder(self._path)
        run_id = run.begin(self._config)
        with ExitStack() as stack:
            stack.enter_context(run.claimed())
            teacher = None
            if method_of(self._config.method).buys:
                opened = self._connection.teacher(run_id=run_id, budget=self._budget, run=run)
                teacher = stack.enter_context(opened)
            whole = Distillation(self._config, run, teacher, self._context)
            whole.execute(leave_one_out=self._accuracy_without(parts, whole, teacher) if parts else {})

    def _accuracy_without(
        self, parts: Sequence[_Without], whole: Distillation, teacher: Buyer | None
    ) -> dict[str, float]:
        """Train students without a domain each, and measure them in it; returns the accuracy by domain."""
        say = self._context.display.note
        dataset = whole.check()
        fixed: dict[Path, Split] = {}
        if dataset.seen.images.size:  # otherwise they draw the same split by themselves
            fixed = {dataset.examples[position].path: "train" for position in dataset.train}
        for part in parts:  # before anything is bought
            say(f"Checking what is left without {part.domain} ...")
            self._run_of(part, teacher, fixed).check()
        run_ids = [RunFolder(part.path).begin(part.config) for part in parts]  # a name may be too long
        whole.prepare()
        accuracies = {}
        for part, run_id in zip(parts, run_ids, strict=True):
            say(f"Leaving out {part.domain} ...")
            own = None if teacher is None else teacher.for_run(run_id, budget=0)
            summary = self._run_of(part, own, fixed).execute()
            assert summary is not None
            accuracies[part.domain] = summary.accuracy.by_domain[part.domain]
        return accuracies

    def _run_of(
        self, part: _Without, teacher: Buyer | None, fixed_splits: Mapping[Path, Split]
    ) -> Distillation:
        run = RunFolder(part.path)
        return Distillation(part.config, run, teacher, self._context, fixed_splits=fixed_splits, in_turn=True)

    def _parts(self) -> list[_Without]:
        """The runs that leave a domain out.

        They begin with weights that have seen no domain: not with those of a former student. To them, images
        of the domain where the student will work are images without labels like others.

        Raises:
            UsageError: a domain is held out already, there is only one, or the runs would ask what the whole
                run does not.
        """
        config = self._config
        folder = listed(config)
        if config.target_domain is not None or len(folder.domains) < 2:
            raise UsageError(
                "--leave-one-out leaves every domain out in turn: it takes at least two domains, and no "
                "--target-domain."
            )
        _require_same_styles(config, folder)
        first = first_weights(config.student_weights)
        unseeing = config.changed(student_weights=first, unlabelled=config.pools, adapt=())
        return [
            _Without(
                domain,
                unseeing.changed(target_domain=domain),
                self._path / "leave-one-out" / as_file_name(domain),
            )
            for domain in folder.domains
        ]


def _require_same_styles(config: RunConfig, folder: ImageFolder) -> None:
    """Refuse a method that asks about classes in styles, where a student of fewer domains asks about others.

    Nobody would buy these texts: such a student learns from what the whole run buys.

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
