"""The data set of a run: the images of the source domains, further views of them, and what each is for."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median_low
from types import MappingProxyType
from typing import Any

from client.buying import budget, teacher
from client.buying.selection import Stratum
from client.data.domains import (
    LOOSE_IN_DOMAIN,
    LOOSE_IN_ROOT,
    ImageFolder,
    list_folder,
    relative,
)
from client.data.examples import UNLABELLED, Example, read_files
from client.data.finder import Skipped, counted, described
from client.data.images import UnreadableImage
from client.data.manifests import Manifest, recognise
from client.data.pool import Pool, read_pool
from client.data.splits import Split, split
from client.data.views import ORIGINAL, View
from client.errors import DataError
from client.learning.methods import METHODS, steps_of
from client.learning.recipe import PAPER, RECIPES, Recipe
from client.progress import Display
from client.results.expectations import gains_of
from client.results.records import Outlook, Plan, PlannedPurchase, SkippedFile
from client.runs.digest import StageInputs
from client.runs.folder import RunConfig
from client.runs.generations import NOTHING_SEEN, Seen, seen_before
from client.runs.memo import Memo
from shared.embeddings import ModelCard

# What a copy of a labelled image is left out as.
_LABELLED = "a labelled image"


@dataclass(frozen=True)
class Dataset:
    """The images of a run by position, and what each is for. What the teacher says of them lies beside it.

    Attributes:
        folder: the labelled images.
        target: the domain that is held out; `None` where every domain trains.
        domains: the source domains.
        examples: every image of these and, behind them, unlabelled images and further views of training
            images.
        splits: what each of `examples` is for.
        skipped: files that are left out, those of the target domain aside.
        seen: what the weights have seen that the run begins with.
    """

    folder: ImageFolder
    target: str | None
    domains: tuple[str, ...]
    examples: tuple[Example, ...]
    splits: tuple[Split, ...]
    skipped: tuple[Skipped, ...]
    seen: Seen = NOTHING_SEEN

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.folder.classes

    @cached_property
    def train(self) -> list[int]:
        """Positions of the labelled images to train on, further views aside."""
        return self._originals("train")

    @cached_property
    def holdout(self) -> list[int]:
        """Positions of the images that are held out for selection."""
        return self._originals("holdout")

    @cached_property
    def unlabelled(self) -> list[int]:
        """Positions of the images without labels."""
        return self._originals("unlabelled")

    @cached_property
    def views(self) -> list[int]:
        """Positions of the further views."""
        return [i for i, example in enumerate(self.examples) if example.view != ORIGINAL]

    def views_of(self, position: int) -> list[int]:
        """Positions of the further views of an image, the second first."""
        return self._views_of.get(self.examples[position].file, [])

    def stratum(self, position: int) -> Stratum:
        """The domain and the class of an image; of an unlabelled one, its pool and nothing."""
        example = self.examples[position]
        return example.domain, "" if example.label == UNLABELLED else self.classes[example.label]

    @property
    def labels(self) -> list[int]:
        """The class of each of `examples`, as a position among `classes`, or UNLABELLED."""
        return [example.label for example in self.examples]

    @cached_property
    def content(self) -> str:
        """A SHA-256 (hex) of the content of all images and of what each is for."""
        return self.content_of(range(len(self.examples)))

    def content_of(self, positions: Iterable[int]) -> str:
        """The same of some images."""
        digest = hashlib.sha256()
        for position in positions:
            example = self.examples[position]
            told = (example.digest, example.domain, example.label, example.view.index, self.splits[position])
            digest.update(repr(told).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def _originals(self, split: Split) -> list[int]:
        return [
            position
            for position, (example, of) in enumerate(zip(self.examples, self.splits, strict=True))
            if of == split and example.view == ORIGINAL
        ]

    @cached_property
    def _views_of(self) -> dict[str, list[int]]:
        views: dict[str, list[int]] = defaultdict(list)
        for position in self.views:
            views[self.examples[position].file].append(position)
        return views


@dataclass(frozen=True)
class DomainInputs(StageInputs):
    """What the images of a domain depend on, as far as one command goes: it reads each file once."""

    root: Path
    domain: str
    group_by_name: bool


@dataclass(frozen=True)
class PoolInputs(StageInputs):
    """What the unlabelled images depend on, as far as one command goes."""

    words: tuple[str, ...]
    root: Path
    target: str | None


@dataclass(frozen=True)
class ViewInputs(StageInputs):
    """What the further views of some images depend on."""

    content: str
    rounds: int


def asks(config: RunConfig) -> frozenset[str]:
    """What the run's method takes from the vendor; see `Method.asks`."""
    name = config.method.split("+")[0]
    return METHODS[name].asks if name in METHODS else frozenset()


def read_dataset(
    config: RunConfig,
    display: Display,
    memo: Memo | None = None,
    *,
    seen: Seen | None = None,
    told: Mapping[Path, Split] = MappingProxyType({}),
) -> Dataset:
    """Read every domain but the target, if there is one, of which only file names are seen.

    Images that the weights have seen that the run begins with are trained on. For that the target is read as
    well, and refused if it has any of them. Where the folder seems to be a known data set and differs from
    it, its images are far smaller than what the student sees, or all of a class are held out, a note says so.

    Args:
        config: the run.
        display: where to say it.
        memo: what it has in common with other runs, which is not read again; `None` for nothing.
        seen: what the weights have seen; `None` to look it up (`seen_before`).
        told: the side of files of which it is told, but for what a table says.

    Raises:
        DataError: the folder, its domains or its classes are not what a run needs.
        UsageError: the run would be measured on images that the weights have seen.
    """
    memo = memo or Memo()
    seen = seen_before(config, None, display) if seen is None else seen
    folder = list_folder(Path(config.data), group_by_name=config.group_by_name)
    if known := recognise(folder):
        _mention_differences(known, folder, display)
        _mention_recipe(known, folder, config.recipe, display)
    domains = folder.source_domains(config.target_domain)
    if config.target_domain is not None and seen.images.size:
        seen.require_none_of(read_domain(folder, config.target_domain, display, memo)[0], config=config)
    examples: list[Example] = []
    skipped: list[Skipped] = []
    for domain in domains:
        read, unread = read_domain(folder, domain, display, memo)
        if not read:
            raise DataError(
                f"{folder.root} has no readable image in the domain {domain!r} to train on; the first: "
                f"{relative(unread[0].path, folder.root)}: {unread[0].reason}."
            )
        examples += read
        skipped += unread
    if not domains and not config.pools:
        raise DataError(
            f"{folder.root} names classes and no image: give images without labels with --unlabelled."
        )
    told = seen.told(examples, {**told, **folder.splits}, config=config)
    train, held = split(examples, holdout=config.recipe.holdout, seed=config.seed, told=told)
    few = "too few that the weights have not seen" if seen.images.size else "too few"
    _mention_one_sided(folder, examples, train, held, display, few=few)
    trained = set(train)
    splits: list[Split] = ["train" if i in trained else "holdout" for i in range(len(examples))]
    dataset = Dataset(
        folder=folder,
        target=config.target_domain,
        domains=domains,
        examples=tuple(examples),
        splits=tuple(splits),
        skipped=(*folder.ignored_outside(config.target_domain), *skipped),
        seen=seen,
    )
    if config.pools:
        dataset = _with_pools(dataset, config.pools, display, memo)
    _mention_size(dataset.examples, config.image_size, display)
    return _with_views(dataset, config.recipe.views if "images" in asks(config) else 0, display, memo)


def _with_pools(dataset: Dataset, words: tuple[str, ...], display: Display, memo: Memo) -> Dataset:
    """The data set with unlabelled images, none of them a copy of a labelled image or of one to be tested on.

    For that the target domain is read, and nothing else is done with it.
    """
    folder, files = dataset.folder, sorted(dataset.folder.files.items())

    def read() -> Pool:
        known = {
            _LABELLED: [path for (name, _), paths in files if name != dataset.target for path in paths],
            f"an image of {dataset.target}, which is tested on": [
                path for (name, _), paths in files if name == dataset.target for path in paths
            ],
        }
        facts = {what: read_files(paths, memo.files) for what, paths in known.items()}
        readable = {what: (each for each in of if not each.reason) for what, of in facts.items()}
        return read_pool(words, readable, memo.files, display)

    pool, _ = memo.once(PoolInputs(words, folder.root, dataset.target), read)
    splits: list[Split] = ["unlabelled" for _ in pool.examples]
    return replace(
        dataset,
        examples=dataset.examples + pool.examples,
        splits=(*dataset.splits, *splits),
        skipped=(*dataset.skipped, *pool.left_out),
    )


def _with_views(dataset: Dataset, rounds: int, display: Display, memo: Memo) -> Dataset:
    """The data set with further views of its training images: the first of each, then the second, and so on.

    Each is made once here, for its digest, and made again whenever its pixels are needed.
    """

    def see(image_and_index: tuple[Example, int]) -> Example:
        image, index = image_and_index
        try:
            return image.seen_as(View.of(image.digest, index))
        except UnreadableImage as error:
            raise DataError(f"{image.path} has changed while it was read: {error}.") from error

    def see_all() -> tuple[Example, ...]:
        images = [dataset.examples[position] for position in dataset.train]
        wanted = [(image, index) for index in range(1, rounds + 1) for image in images]
        seen: list[Example] = []
        with display.track("Making views", len(wanted)) as advance, ThreadPoolExecutor() as pool:
            for view in pool.map(see, wanted):
                seen.append(view)
                advance(len(seen), "")
        return tuple(seen)

    views, _ = memo.once(ViewInputs(dataset.content_of(dataset.train), rounds), see_all)
    splits: list[Split] = ["train" for _ in views]
    return replace(dataset, examples=dataset.examples + views, splits=(*dataset.splits, *splits))


def _mention_differences(known: Manifest, folder: ImageFolder, display: Display) -> None:
    """Say where a folder is not the data set whose name or domains it has: figures would not compare."""
    differences = known.differences(folder)
    if differences:
        display.note_once(
            f"{folder.root} looks like {known.name} and is not all of it: {differences[0]} "
            f"`client data check` lists all {len(differences)} differences and what else is wrong."
        )


def _mention_recipe(known: Manifest, folder: ImageFolder, recipe: Recipe, display: Display) -> None:
    """Say where the paper has another recipe for a data set than the one that is taken."""
    if known.recipe != "paper" and recipe.is_protocol_of(PAPER):
        steps = RECIPES[known.recipe].steps
        display.note_once(
            f"{folder.root} looks like {known.name}, for which the paper takes {steps:,} steps a stage and "
            f"not {recipe.steps:,}: take --recipe {known.recipe}."
        )


def _mention_size(examples: Sequence[Example], image_size: int, display: Display) -> None:
    """Say where most of what the student sees would be enlargement (docs/experiments.md: what it costs)."""
    side = median_low(example.side for example in examples)
    slightly_larger = 32 * (side // 32 + 1)
    if image_size > max(2 * side, slightly_larger):
        display.note_once(
            f"Half of the images are {side} px or less on their shorter side, and the student sees them at "
            f"{image_size} px: --image-size {slightly_larger} is faster, and can be more accurate."
        )


def _mention_one_sided(
    folder: ImageFolder,
    examples: Sequence[Example],
    train: Sequence[int],
    held: Sequence[int],
    display: Display,
    *,
    few: str,
) -> None:
    """Say which classes have images on one side of the split alone, and which domains have no hold-out."""
    taught, tested = ({examples[position].label for position in side} for side in (train, held))
    if untaught := sorted(tested - taught):
        names = _named([folder.classes[label] for label in untaught])
        display.note_once(f"All images of {names} are held out, as the table says: none is trained on.")
    if untested := sorted(taught - tested):
        names = _named([folder.classes[label] for label in untested])
        display.note_once(
            f"No image of {names} is held out, for there are {few}: the accuracy does not tell about them."
        )
    gaps = [
        f"{domain}/{name}"
        for domain in {example.domain for example in examples}
        for name in folder.classes
        if not folder.files.get((domain, name))
    ]
    if gaps:
        display.note_once(f"There is no image of {_named(sorted(gaps))}.")
    domains = {examples[i].domain for i in train} - {examples[i].domain for i in held}
    if domains:
        display.note_once(
            f"No image of the domain {_named(sorted(domains))} is held out: it is not measured."
        )


def _named(names: Sequence[str]) -> str:
    """The first five of some names, and how many there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def read_domain(
    folder: ImageFolder, domain: str, display: Display, memo: Memo
) -> tuple[list[Example], list[Skipped]]:
    """The images of a domain, and the files that are none; read once for all runs that share a memo."""

    def read() -> tuple[list[Example], list[Skipped]]:
        with display.track(f"Reading {domain}", folder.count(domain)) as advance:
            return folder.read([domain], lambda done: advance(done, ""), memo.files)

    return memo.once(DomainInputs(folder.root, domain, bool(folder.drawn)), read)[0]


def unseen(config: RunConfig, dataset: Dataset) -> int:
    """How many of the images without labels no step of the run would look at, so that they are not bought."""
    most = config.recipe.most_unlabelled(domains=len(dataset.domains), labelled=len(dataset.train))
    return 0 if most is None else max(0, len(dataset.unlabelled) - most)


def _steps(config: RunConfig, dataset: Dataset, plan: budget.Plan | None) -> int:
    """How many steps the last stage would take, with what the plan gets."""
    had = {} if plan is None else {each.name: each.cached + each.to_buy for each in plan.tranches}
    settled = config.recipe.settled(
        domains=len(dataset.domains),
        labelled=len(dataset.train) + had.get("views", 0),
        unlabelled=had.get("unlabelled", 0),
    )
    return steps_of(METHODS[config.method.split("+")[0]], settled)


def describe_plan(
    config: RunConfig,
    dataset: Dataset,
    model: ModelCard | None,
    plan: budget.Plan | None,
    outlook: Outlook | None = None,
) -> Plan:
    """What a run would use and buy, as `plan.json` holds it and `client plan --json` prints it."""
    root = dataset.folder.root
    return Plan(
        method=config.method,
        target_domain=dataset.target,
        source_domains=list(dataset.domains),
        classes=list(dataset.classes),
        train_images=len(dataset.train),
        holdout_images=len(dataset.holdout),
        images_by_domain=dict(
            Counter(dataset.examples[position].domain for position in (*dataset.train, *dataset.holdout))
        ),
        unlabelled_images=len(dataset.unlabelled),
        unseen_images=unseen(config, dataset),
        steps=_steps(config, dataset, plan),
        left_out=counted(dataset.skipped),
        skipped=[SkippedFile(path=relative(s.path, root), reason=s.reason) for s in dataset.skipped],
        model=model,
        purchase=None if plan is None else PlannedPurchase.model_validate(plan.to_json()),
        outlook=outlook,
        gains=None if outlook is None else gains_of(config.method, pool=bool(config.pools)),
    )


def describe_views(dataset: Dataset) -> list[dict[str, Any]]:
    """The further views with their parameters and digests, as `views.jsonl` holds them, a line each."""
    return [
        {"image": relative(view.path, dataset.folder.root), "digest": view.digest, **view.view.to_json()}
        for view in map(dataset.examples.__getitem__, dataset.views)
    ]


def describe_outlook(outlook: teacher.Outlook) -> Outlook:
    """What a plan says of the vendor: its own price, what quota and money allow, and the time it takes."""
    return Outlook(quote=outlook.quote, prices_known=outlook.prices_known, seconds=outlook.seconds)


def unread_in(
    folder: ImageFolder, domains: Sequence[str], skipped: Sequence[Skipped], display: Display
) -> list[Skipped]:
    """The files of domains that are tested on which are left out, by names, places or as they are read.

    They are mentioned.
    """
    unread = [*folder.ignored_in(domains), *skipped]
    mention(unread, folder.root, display, listed_in="`client data check --json`")
    return unread


def mention(skipped: Sequence[Skipped], root: Path, display: Display, *, listed_in: Path | str) -> None:
    """Say which files are left out: the first five that may be missed, and how many there are by reason.

    Args:
        skipped: the files.
        root: their names are shown relative to it.
        display: where to say it.
        listed_in: which file of the run, command or option lists all.
    """
    missed = [file for file in skipped if file.is_loss]
    display.note_skipped(
        {relative(file.path, root): file.reason for file in missed}, listed_in=str(listed_in)
    )
    by_reason = counted(skipped)
    if by_reason.keys() & {LOOSE_IN_ROOT, LOOSE_IN_DOMAIN}:
        display.note_once(f"Loose pictures are in no class: put them into {root}/<domain>/<class>/.")
    if len(by_reason) > 1 or len(skipped) > len(missed):
        left_out = f"Left out: {described(by_reason)}"
        display.note_once(f"{left_out}; {listed_in} lists them.", about=f"{left_out} of {root}")
