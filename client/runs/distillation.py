"""The run: plan, buy, align, distill, evaluate. A stage whose artefact exists is skipped."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.data.examples import UNLABELLED
from client.data.pixels import PixelStore
from client.data.splits import Split, halves
from client.learning.backbones import load_backbone
from client.learning.methods import method_of
from client.learning.stages import plain_features
from client.learning.student import build_student
from client.learning.student_file import load_student
from client.learning.training_set import TrainingSet
from client.learning.views import transform_of
from client.purchase.buyer import Buyer
from client.purchase.selection import acquisition_of
from client.results.records import Summary
from client.runs.conclusion import Conclusion
from client.runs.config import RunConfig
from client.runs.context import RunContext
from client.runs.dataset import Dataset, read_dataset
from client.runs.folder import RunFolder
from client.runs.freshness import student_stamp, why_outdated
from client.runs.generations import seen_before
from client.runs.mentions import mention_arithmetic, mention_skipped
from client.runs.requirements import require_layers, require_student
from client.runs.rounds import Rounds
from client.runs.target_builder import TargetBuilder
from client.runs.targets import Targets
from client.runs.tensorboard import mirrored
from client.runs.trainer import Trainer, stamp_of


class Distillation:
    """One run in one folder. `execute` takes it from wherever it stands to its summary."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        teacher: Buyer | None,
        context: RunContext,
        *,
        fixed_splits: Mapping[Path, Split] = MappingProxyType({}),
        in_turn: bool = False,
        other_selections: Sequence[str] = (),
        onnx: bool = True,
    ) -> None:
        """Take up a run.

        Args:
            config: the run.
            run: its folder.
            teacher: where to buy; `None` for a method that buys nothing.
            context: what it shares with other runs.
            fixed_splits: the side of the files whose side is fixed.
            in_turn: whether domains are held out in turn, and this run's is one of them.
            other_selections: selections that runs to come make of the same steps (see `same_steps`).
            onnx: whether the student is written as ONNX as well.
        """
        self._config = config
        self._standing = run
        self._run = run
        self._teacher = teacher
        self._context = context
        self._display = context.display
        self._device = torch.device(context.device)
        self._processes = context.processes
        self._fixed_splits = fixed_splits
        self._in_turn = in_turn
        self._other_selections = other_selections
        self._onnx = onnx
        self._method = method_of(config.method)

    def check(self) -> Dataset:
        """Read the images and refuse a run that cannot be trained; returns the images. Nothing is bought.

        Raises:
            ClientError: as `execute`.
        """
        self._standing.finish_replacement()
        dataset = self._read()
        self._require_trainable(dataset)
        return dataset

    def prepare(self) -> None:
        """Check the run and buy what it asks, and no more.

        Raises:
            ClientError: as `execute`.
        """
        self._targets(self.check())

    def execute(self, *, leave_one_out: Mapping[str, float] | None = None) -> Summary | None:
        """Run every stage that has not been run, and return the summary; in further processes, nothing.

        Args:
            leave_one_out: what students that were trained without a domain got right in it, for the summary;
                with nothing, what an earlier command found for the same student stays.

        Raises:
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        self._run = standing = self._standing
        together = self._processes
        if together.is_main:
            standing.finish_replacement()
        dataset = together.broadcast(self._read)
        backbone = self._require_trainable(dataset)
        targets = together.broadcast(lambda: self._targets(dataset))
        data = self._training_set(dataset, targets)
        stamp = student_stamp(self._config, dataset, targets)
        is_trained = together.broadcast(lambda: stamp_of(self._run.student) == stamp)
        if is_trained:
            self._display.note(f"The student is trained already: {self._run.student}")
        else:
            self._train(backbone, dataset, targets, data, stamp)
        if not together.is_main:
            return None
        student = load_student(self._run.student)[0].to(self._device)
        conclusion = Conclusion(
            self._config,
            self._run,
            dataset,
            data,
            self._teacher,
            targets.check,
            self._display,
            self._context.memo.files,
        )
        if self._onnx:
            conclusion.export(student)
        former = self._left_out_before() if is_trained else {}
        summary = conclusion.evaluate(student, leave_one_out or former, stands_in=standing.path)
        if self._run is not standing:
            standing.finish_replacement(whole=True)
        return summary

    def _require_trainable(self, dataset: Dataset) -> nn.Module:
        """The pre-trained backbone; whatever cannot be trained is refused here, before anything is bought."""
        config = self._config
        if self._method.trains:
            domains = len(dataset.taught_domains)
            recipe = config.recipe.settled(domains=domains)
            labelled = recipe.images_per_domain * domains
            self._processes.shard(labelled)  # of images without labels, perhaps none will be bought
            if dataset.unlabelled:
                pool = recipe.unlabelled_in_batch(recipe.images_per_domain, domains)
                self._processes.shard(labelled + pool)
        backbone = load_backbone(config.student, image_size=config.image_size, weights=config.student_weights)
        require_layers(self._method, config.recipe, config.student, backbone)
        model = None if self._teacher is None else self._teacher.model
        require_student(self._method, config.student, backbone, model)
        if model is not None:
            mention_arithmetic(model, config.recipe, self._display)
        return backbone

    def _train(
        self, backbone: nn.Module, dataset: Dataset, targets: Targets, data: TrainingSet, stamp: str
    ) -> None:
        run, together = self._run, self._processes
        trainer = Trainer(
            self._config,
            self._method,
            run,
            self._display,
            device=str(self._device),
            memo=self._context.memo,
            other_selections=self._other_selections,
            processes=together,
        )
        if together.is_main:
            run.onnx.unlink(missing_ok=True)
        with mirrored(run) if together.is_main else nullcontext():
            trainer.train(backbone, dataset, targets, data, stamp)

    def _read(self) -> Dataset:
        seen = seen_before(self._config, self._standing, self._display)
        dataset = read_dataset(
            self._config, self._display, self._context.memo,
            seen=seen, fixed_splits=self._fixed_splits, in_turn=self._in_turn,
        )  # fmt: skip
        seen.keep(self._standing)
        mention_skipped(dataset.left_out, dataset.folder.base, self._display, listed_in=self._run.plan)
        return dataset

    def _targets(self, dataset: Dataset) -> Targets:
        builder = self._target_builder(self._run)
        if self._run.student.exists():
            recalled = builder.recall(dataset)
            if recalled is not None and self._is_of(dataset, recalled):
                return recalled
            self._context.agree(why_outdated(self._run, self._config, dataset, may_buy=recalled is None))
            self._run = self._run.begin_replacement(self._config)
            dataset.seen.keep(self._run)
            builder = self._target_builder(self._run)
        return builder.build(dataset, self._context.approve)

    def _target_builder(self, run: RunFolder) -> TargetBuilder:
        return TargetBuilder(self._config, self._method, run, self._teacher, self._display, self._rounds)

    def _rounds(self, dataset: Dataset) -> Rounds | None:
        """The rounds in which images are chosen, where somebody's acquisition does it."""
        config = self._config
        acquisition = acquisition_of(config.select)
        if acquisition is None:
            return None

        def features(positions: Sequence[int]) -> NDArray[np.float32]:
            backbone = load_backbone(
                config.student, image_size=config.image_size, weights=config.student_weights
            )
            student = build_student(backbone, outputs=1, text_head=None, image_size=config.image_size)
            images = PixelStore(dataset.examples, self._context.pixels)
            return plain_features(student.to(self._device), images, positions).cpu().numpy()

        return Rounds(acquisition, config, dataset, features)

    def _is_of(self, dataset: Dataset, targets: Targets) -> bool:
        """Whether the finished student is what training on these would give."""
        return stamp_of(self._run.student) == student_stamp(self._config, dataset, targets)

    def _left_out_before(self) -> Mapping[str, float]:
        """The accuracy that an earlier command measured by leaving domains out."""
        run = self._run
        return run.record(Summary, run.summary).leave_one_out if run.summary.exists() else {}

    def _training_set(self, dataset: Dataset, targets: Targets) -> TrainingSet:
        numbers = {domain: number for number, domain in enumerate(dataset.domains)}
        domains = [-1 if e.label == UNLABELLED else numbers[e.domain] for e in dataset.examples]
        return TrainingSet(
            images=PixelStore(dataset.examples, self._context.pixels),
            labels=torch.tensor(dataset.labels),
            domains=torch.tensor(domains),
            targets=targets.rows,
            train=targets.train,
            holdout=dataset.holdout,
            texts=targets.texts,
            view=None if self._config.transform is None else transform_of(self._config.transform),
            halves=torch.tensor(halves([dataset.examples[position] for position in dataset.holdout])),
        )
