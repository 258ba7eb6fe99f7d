"""Many runs to one table: leave one domain out, over domains, seeds and methods, buying each image once."""

import hashlib
import math
import os
import platform
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from client.data.class_files import beside, wording_of
from client.data.kept_images import is_named_as_kept
from client.data.names import size_of
from client.data.pool import find_pool
from client.data.sources.source import data_name, rooted_data
from client.data.wording import THEIR_OWN_NAMES
from client.errors import UsageError
from client.learning.backbones import load_backbone, local_files
from client.learning.methods import method_of, parse_method
from client.learning.recipe import Variant
from client.paths import resolved
from client.purchase.buyer import Buyer
from client.results.comparison_table import FORMATS, ComparisonTable, Setting
from client.results.run_result import RunResult
from client.runs.cells import Cell, answers_of, by_steps, name_of_run, price_among
from client.runs.code import code_of
from client.runs.config import RunConfig
from client.runs.connection import Connection
from client.runs.context import RunContext
from client.runs.dataset import Dataset, DomainInputs, PoolInputs, listed, read_dataset
from client.runs.digest import StageInputs
from client.runs.distillation import Distillation
from client.runs.fewer_labels import with_labels
from client.runs.folder import RunFolder
from client.runs.forecast import worth_asking
from client.runs.generations import content_of, seen_before
from client.runs.joint_purchase import Asked, JointOffer, JointPurchase
from client.runs.memo import Memo
from client.runs.mentions import mention_arithmetic
from client.runs.requirements import require_layers, require_student
from client.runs.teacher_queries import teacher_queries
from client.runs.trainer import FeatureInputs
from client.runs.zero_shot import (
    ZERO_SHOT,
    TestSet,
    ZeroShotPlan,
    ZeroShotQueries,
    ZeroShotSummary,
    grade,
    zero_shot_test_set,
)

# A comparison reads every domain once, and has one set of features in memory.
_KEPT: dict[type[StageInputs], int] = {
    DomainInputs: 1000,
    PoolInputs: 1000,
    FeatureInputs: 1,
}
_INSTEAD = "choose another --out, or delete that folder. What was bought is in the cache."


@dataclass(frozen=True)
class ComparisonConfig:
    """The runs of a comparison.

    Attributes:
        run: the options that all runs share. Its `use_at_most` holds for each of them, so no run profits from
            what another one bought.
        variants: the rows.
        targets: the domains to hold out, one after the other; empty for all.
        seeds: each run is repeated with these.
        labels: each row is repeated with so many labels a class; `None` stands for all.
        budgets: each row that asks is repeated with these in the place of `use_at_most`; `None` stands for
            all that it asks. Empty for `use_at_most` alone.
    """

    run: RunConfig
    variants: Sequence[Variant]
    targets: Sequence[str]
    seeds: Sequence[int]
    labels: Sequence[int | None] = (None,)
    budgets: Sequence[int | None] = ()


class ComparisonRunner:
    """A comparison in a folder. Runs that have finished there, in whatever comparison, are not run again."""

    def __init__(
        self,
        config: ComparisonConfig,
        out: Path,
        connection: Connection,
        *,
        device: str,
        max_spend_micros: int | None = None,
        approve: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take up a comparison.

        Args:
            config: what is compared.
            out: its folder; one folder a run is made in it, the table in five formats, and its page.
            connection: where to buy, and the one cache.
            device: where to train.
            max_spend_micros: what may be paid in all, in millionths of the vendor's currency unit.
            approve: called with the price of everything before anything is bought; it raises to stop.

        Raises:
            UsageError: a target, method or number does not exist or does not suffice.
        """
        self._config = config
        # What all runs share. A link to the data may lead elsewhere tomorrow.
        weights = config.run.student_weights
        self._shared = config.run.changed(
            data=rooted_data(config.run.data), student_weights=None if weights is None else resolved(weights)
        )
        self._folder = RunFolder(out)
        self._display = connection.display
        self._context = RunContext(
            connection.display, device, connection.pixels, Memo(_KEPT, connection.files)
        )
        self._purchase = JointPurchase(self._folder, connection, max_spend_micros, approve)
        self._images = listed(self._shared)
        self._images.require_domains(config.targets)
        self._pools = {word: find_pool(word, self._shared.columns).images for word in self._shared.unlabelled}
        _require_none_kept(self._pools)
        self._tables = connection.sets / "labels"
        self.cells = self._cells()

    @property
    def setting(self) -> Setting:
        """The setting that its runs share, as the table states it."""
        config, folder = self._shared, self._images
        model = self._folder.began_with
        return Setting(
            data=data_name(folder.given),
            images={domain: folder.count(domain) for domain in folder.domains},
            classes=len(folder.classes),
            student=config.student,
            image_size=config.image_size,
            teacher=None if model is None else f"{model.id} ({model.fingerprint})",
            queries=config.use_at_most,
            machine=_machine(self._context.device),
            planned=len(self.cells),
        )

    def quote(self) -> JointOffer:
        """Quote the purchase of all runs together, at the most; spends nothing."""
        self._require_same_images()
        self._require_same_weights()
        pending = [cell for cell in self.cells if cell.buys and not cell.run.summary.exists()]
        if not pending:
            return JointOffer(0, 0, 0)
        with self._purchase.teacher(self._known.get("run_id", "quote")) as teacher:
            return self._purchase.quote(teacher, [self._asked(cell) for cell in pending])

    def execute(self) -> list[RunResult]:
        """Buy what is missing, run what has not been run, write the table, and return its runs.

        Raises:
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        self._begin()
        with ExitStack() as stack:
            stack.enter_context(self._folder.claimed())
            pending = by_steps([cell for cell in self.cells if not cell.run.summary.exists()])
            buying = [cell for cell in pending if cell.buys]
            begun = self._purchase.begun(self._known["run_id"]) if buying else None
            teacher = None if begun is None else stack.enter_context(begun)
            self._require_students([cell for cell in pending if cell.trains], teacher)
            if teacher is not None:
                self._purchase.buy(teacher, [self._asked(cell) for cell in buying])
            for number, cell in enumerate(pending, start=1):
                self._display.note(
                    f"Run {number} of {len(pending)}: {cell.variant.name}, {cell.target} held "
                    f"out, seed {cell.config.seed}."
                )
                self._run(cell, teacher, pending[number:])
                self._write_tables()
            results = self._write_tables()
            self._write_page(results)
        return results

    def _cells(self) -> list[Cell]:
        """The runs, in the order of domains, seeds and rows.

        Raises:
            UsageError: they do not reach the class prompts, or one of them is named twice.
        """
        classes = len(self._images.classes)
        most = max((math.inf if each is None else each for each in self._budgets), default=0)
        if most < classes and not (self._config.budgets and any(not _buys(v) for v in self._config.variants)):
            raise UsageError(
                f"{most} queries a run do not reach the {classes} class prompts, without which no student "
                "can name its classes. Raise --budget."
            )
        cells = [
            self._cell(variant, target, seed, labels, budget)
            for target in self._config.targets or self._images.domains
            for seed in self._config.seeds
            for labels in self._config.labels
            for variant in self._config.variants
            for budget in self._budgets_of(variant, labels)
        ]
        if len({cell.run.path for cell in cells}) < len(cells):
            raise UsageError(
                "A row, a target or a seed is named twice: each run of a comparison is run once."
            )
        return cells

    @property
    def _budgets(self) -> Sequence[int | None]:
        return self._config.budgets or (self._shared.use_at_most,)

    def _budgets_of(self, variant: Variant, labels: int | None) -> Sequence[int | None]:
        """The budgets with which a row is run; none where it would be the same again, or cannot be."""
        most = self._shared.use_at_most
        if variant.method == ZERO_SHOT:  # it depends on neither
            return [most] if labels == self._config.labels[0] else []
        method = method_of(variant.method)
        if labels == 0 and not (method.learns_unlabelled and "images" in method.asks):
            return []
        if not method.buys:
            return [most]
        return [each for each in self._budgets if each is None or each >= len(self._images.classes)]

    def _cell(self, variant: Variant, target: str, seed: int, labels: int | None, budget: int | None) -> Cell:
        recipe, unlabelled, shared = variant.recipe, tuple[str, ...](), self._shared
        if variant.method == ZERO_SHOT:
            learns_unlabelled, labels = False, None
        else:
            method, recipe = parse_method(variant.method, recipe)
            learns_unlabelled = method.learns_unlabelled
            unlabelled = shared.unlabelled if learns_unlabelled else ()
        if labels is not None:
            fewer = with_labels(self._images, self._tables, target=target, seed=seed, count=labels)
            others = [str(fewer.others)] if learns_unlabelled and fewer.others else []
            names = shared.names or beside(self._images)
            shared = shared.changed(data=fewer.labelled, layout=None, columns=(), names=names)
            unlabelled = (*unlabelled, *others)
        run = shared.changed(
            use_at_most=budget,
            target_domain=target,
            method=variant.method,
            seed=seed,
            recipe=replace(recipe, passes=0),  # rows that take as many steps can be compared
            unlabelled=unlabelled,
        )
        told = budget if budget != self._shared.use_at_most else None
        name = name_of_run(variant, target, seed, labels, told)
        return Cell(variant, run, RunFolder(self._runs / name), labels, told)

    def _begin(self) -> None:
        """Make the folder, or take it up; `RunFolder.begin` refuses a folder that holds another run."""
        folder = self._folder
        folder.make(self._identity, "no comparison")
        with folder.claimed():  # its id is drawn once, as that of a run is
            self._require_same_images()
            self._require_same_weights()
            self._require_same_code()
            known = self._known
            begun = {"run_id": secrets.token_hex(8), "images": self._digest, **known}
            if self._code:
                begun["code"] = {**known.get("code", {}), **self._code}
            if self._weights is not None:
                begun.setdefault("weights", self._weights)
            if begun != known:
                folder.write(self._identity, begun)
        for cell in self.cells:
            cell.run.begin(cell.config)

    def _require_same_images(self) -> None:
        """Refuse to put runs over other images beside those that have finished."""
        if self._known.get("images") not in (None, self._digest):
            split = "" if self._images.depth else " or their split"
            raise UsageError(
                f"The images in {self._images.given}{split} or their prompts have changed since "
                f"{self._folder.path} was begun, and runs over other images do not compare: {_INSTEAD}"
            )

    def _require_same_weights(self) -> None:
        """Refuse to put runs that begin with other weights beside those that have finished."""
        config, begun_with = self._shared, self._known.get("weights")
        if None not in (begun_with, self._weights) and begun_with != self._weights:
            raise UsageError(
                f"The weights of {config.student_weights or config.student} are not those that "
                f"{self._folder.path} was begun with, and runs that begin with others do not compare: "
                f"{_INSTEAD}"
            )

    def _require_same_code(self) -> None:
        """Refuse to put runs by other code beside those that have finished."""
        begun_with: dict[str, str] = self._known.get("code", {})
        for name, code in self._code.items():
            if begun_with.get(name, code) != code:
                raise UsageError(
                    f"The code of {name} has changed since {self._folder.path} was begun with it, and runs "
                    f"by other code do not compare: give the row another name (`Variant`), or {_INSTEAD}"
                )

    @cached_property
    def _code(self) -> dict[str, str]:
        """The digest of what is plugged into the runs of each row (`code_of`), if anything is."""
        found = {cell.variant.name: code_of(cell.config) for cell in self.cells if cell.trains}
        return {name: code for name, code in found.items() if code}

    @cached_property
    def _weights(self) -> str | None:
        """The SHA-256 (hex) of the file of weights, or of each file of the student's folder, joined by "+".

        `None` for weights that are known by a name, or if one cannot be read.
        """
        files = local_files(self._shared.student, self._shared.student_weights)
        digests = [digest for file in files if (digest := content_of(file)) is not None]
        return "+".join(digests) if files and len(digests) == len(files) else None

    @cached_property
    def _digest(self) -> str:
        """A SHA-256 (hex) of the names and sizes of all images, those without labels among them, and of how
        classes are asked about.

        They are listed once: what changes while a comparison runs is found when it is read.
        """
        labelled, run = self._images.digest(), self._shared
        wording = wording_of(self._images, templates=run.prompt, prompts=run.prompts, names=run.names)
        if not self._pools and wording == THEIR_OWN_NAMES:
            return labelled
        files = [(str(p), size_of(p)) for word in self._shared.unlabelled for p in self._pools[word]]
        return hashlib.sha256(
            repr((labelled, files, wording)).encode("utf-8", "backslashreplace")
        ).hexdigest()

    @property
    def _runs(self) -> Path:
        """The folder of the runs."""
        return self._folder.path / "runs"

    @property
    def _known(self) -> dict[str, Any]:
        """The contents of `_identity`; empty where the comparison has not begun."""
        return self._folder.read(self._identity) if self._identity.exists() else {}

    @property
    def _identity(self) -> Path:
        """The file with the id that its receipts carry, and digests of its images and weights."""
        return self._folder.path / "comparison.json"

    # -- what is asked

    def _require_students(self, cells: Sequence[Cell], teacher: Buyer | None) -> None:
        """Refuse, before anything is bought, a student that cannot be had or that a method cannot teach."""
        if not cells:
            return
        config, model = self._shared, None if teacher is None else teacher.model
        backbone = load_backbone(config.student, image_size=config.image_size, weights=config.student_weights)
        for words, recipe in dict.fromkeys((cell.variant.method, cell.config.recipe) for cell in cells):
            require_layers(method_of(words), recipe, config.student, backbone)
            require_student(method_of(words), config.student, backbone, model)
            if model is not None:
                mention_arithmetic(model, recipe, self._display)

    def _asked(self, cell: Cell) -> Asked:
        if not cell.trains:
            return Asked(self._test_set(cell).queries)
        dataset = self._read(cell)
        asked = teacher_queries(cell.config, dataset)
        texts, labelled, further = asked.lots(asked.all)

        def is_worth_more(teacher: Buyer) -> bool:
            return worth_asking(cell.config, dataset, asked, teacher, folder=cell.run.path)

        return Asked([*texts, *labelled], further, is_worth_more)

    def _read(self, cell: Cell) -> Dataset:
        seen = seen_before(cell.config, cell.run, self._display)
        return read_dataset(cell.config, self._display, self._context.memo, seen=seen, in_turn=True)

    def _test_set(self, cell: Cell) -> TestSet:
        dataset = self._read(cell)
        return zero_shot_test_set(dataset, self._display, self._context.memo)

    # -- running

    def _run(self, cell: Cell, teacher: Buyer | None, to_come: Sequence[Cell]) -> None:
        """Everything is bought: a run pays for nothing itself."""
        run_id = cell.run.begin(cell.config)
        own = None if teacher is None or not cell.buys else teacher.for_run(run_id, budget=0)
        if cell.trains:
            Distillation(
                cell.config,
                cell.run,
                own,
                self._context,
                in_turn=True,
                other_selections=[
                    each.config.recipe.selection for each in to_come if each.steps == cell.steps
                ],
                onnx=False,
            ).execute()
            return
        assert own is not None
        test_set = self._test_set(cell)
        with cell.run.timed("evaluate"):
            accuracy = grade(test_set, own, self._context.memo.files)
        asked = ZeroShotQueries(prompts=len(test_set.prompts), images=len(test_set.images))
        cell.run.write(cell.run.plan, ZeroShotPlan(model=own.model, purchase=asked).to_json())
        summary = ZeroShotSummary(
            accuracy=accuracy, queries_cached=len(set(test_set.queries)), seconds=cell.run.seconds()
        )
        cell.run.write(cell.run.summary, summary.to_json())

    # -- the table

    def _write_tables(self) -> list[RunResult]:
        """The table of the runs that have finished, in every format."""
        results = [cell.result for cell in self.cells if cell.run.summary.exists()]
        rows = [variant.name for variant in self._config.variants]
        results.sort(key=lambda r: (rows.index(r.method), [*self._config.labels, None].index(r.labels)))
        if results:
            folder = self._folder
            table = ComparisonTable.of(results, self.setting)
            folder.write(folder.path / "table.json", table.to_json())
            for suffix, render in FORMATS.items():
                folder.write_text(folder.path / f"table.{suffix}", render(results, self.setting))
        return results

    def _write_page(self, results: Sequence[RunResult]) -> None:
        """The page of a finished comparison."""
        from client.results.comparison_page import as_page  # which takes a fifth of a second

        html = as_page(results, self.setting, answers_of(self.cells), price_among(self.cells))
        self._folder.write_text(self._folder.path / "table.html", html)


def _buys(variant: Variant) -> bool:
    return variant.method == ZERO_SHOT or method_of(variant.method).buys


def _require_none_kept(pools: Mapping[str, Sequence[Path]]) -> None:
    """Refuse images that a student was asked about: nobody knows of which domain they are, so none would be
    held out for certain.

    Raises:
        UsageError: all files of a pool have the names of such images.
    """
    for word, files in pools.items():
        if files and all(map(is_named_as_kept, files)):
            raise UsageError(
                f"{word} has, by their names, images that a student was asked about (--keep), and a "
                "comparison cannot tell whether they show a domain that it holds out. Compare without them: "
                "`client distill --adapt` learns from them. If they are others, give them other names."
            )


def _machine(device: str) -> str:
    """The machine that trains, in words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
