"""What a run works with: the images of the source domains, and further views of them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from client.buying import budget, teacher
from client.data.domains import (
    LOOSE_IN_DOMAIN,
    LOOSE_IN_ROOT,
    Example,
    ImageFolder,
    list_folder,
    relative,
    shown,
    split,
)
from client.data.finder import Skipped, counted, described
from client.data.images import UnreadableImage
from client.data.manifests import recognise
from client.data.views import ORIGINAL, View
from client.errors import DataError
from client.learning.methods import METHODS
from client.learning.recipe import PAPER, RECIPES, Recipe
from client.progress import Display
from client.results.records import Outlook, Plan, PlannedPurchase, SkippedFile
from client.runs.folder import RunConfig
from client.runs.memo import SharedWork
from shared.embeddings import ModelCard


@dataclass(frozen=True)
class Sources:
    """The images of the source domains: read, hashed, and split into training images and hold-outs.

    Attributes:
        folder: where they are.
        target: the domain that is held out.
        domains: the others.
        examples: every image of these and, behind them, the further views of training images.
        skipped: files that are left out, those of the target domain aside.
        train: which of `examples` are training images.
        holdout: which of them are held out for selection.
        views: of each of `train`, which of `examples` are its further views.
    """

    folder: ImageFolder
    target: str
    domains: tuple[str, ...]
    examples: list[Example]
    skipped: list[Skipped]
    train: list[int]
    holdout: list[int]
    views: list[list[int]]

    @property
    def labels(self) -> list[int]:
        """The class of each of `examples`, as a position among the folder's classes."""
        return [example.label for example in self.examples]


def asks(config: RunConfig) -> frozenset[str]:
    """What the run's method takes from the vendor; see `Method.asks`."""
    name = config.method.split("+")[0]
    return METHODS[name].asks if name in METHODS else frozenset()


def read_sources(config: RunConfig, display: Display, shared: SharedWork | None = None) -> Sources:
    """Read every domain but the target, of which only file names are seen.

    With `shared`, what was read for another run is not read again. Where the folder seems to be
    a known data set and differs from it, its images are far smaller than what the student sees, or all of a
    class are held out, a note says so.

    Raises:
        DataError: the folder, its domains or its classes are not what a run needs.
    """
    shared = shared or SharedWork()
    folder = list_folder(Path(config.data), group_by_name=config.group_by_name)
    shared.once("manifest", str(folder.root), lambda: _mention_differences(folder, display))
    taken = f"{folder.root}:{config.recipe}"
    shared.once("recipe", taken, lambda: _mention_recipe(folder, config.recipe, display))
    domains = folder.source_domains(config.target_domain)
    examples: list[Example] = []
    skipped: list[Skipped] = []
    for domain in domains:
        read, unread = read_domain(folder, domain, display, shared)
        if not read:
            raise DataError(
                f"{folder.root} has no readable image in the domain {domain!r} to train on; the first: "
                f"{relative(unread[0].path, folder.root)}: {unread[0].reason}."
            )
        examples += read
        skipped += unread
    skipped = [*folder.ignored_outside(config.target_domain), *skipped]
    shared.once("sizes", str(folder.root), lambda: _mention_size(examples, config.image_size, display))
    train, holdout = split(examples, holdout=config.recipe.holdout, seed=config.seed)
    split_by = f"{folder.root}:{domains}:{config.recipe.holdout}:{config.seed}"
    shared.once("untaught", split_by, lambda: _mention_untaught(folder, examples, train, display))
    rounds = config.recipe.views if "images" in asks(config) else 0
    seen = _further_views([examples[i] for i in train], rounds, display, shared)
    views = [list(range(len(examples) + i, len(examples) + len(seen), len(train))) for i in range(len(train))]
    return Sources(folder, config.target_domain, domains, [*examples, *seen], skipped, train, holdout, views)


def _further_views(
    images: Sequence[Example], rounds: int, display: Display, shared: SharedWork
) -> list[Example]:
    """The further views of some images: the first of each image, then the second of each, and so on.

    Each is made once here, for its digest, and made again whenever its pixels are needed.
    """

    def see(image_and_index: tuple[Example, int]) -> Example:
        image, index = image_and_index
        try:
            return image.seen_as(View.of(image.digest, index))
        except UnreadableImage as error:
            raise DataError(f"{image.path} has changed while it was read: {error}.") from error

    def see_all() -> list[Example]:
        wanted = [(image, index) for index in range(1, rounds + 1) for image in images]
        seen: list[Example] = []
        with display.track("Making views", len(wanted)) as advance, ThreadPoolExecutor() as pool:
            for view in pool.map(see, wanted):
                seen.append(view)
                advance(len(seen), "")
        return seen

    content = hashlib.sha256("".join(f"{shown(image.path)}{image.digest}" for image in images).encode())
    return shared.once("views", f"{content.hexdigest()}:{rounds}", see_all)[0]


def _mention_differences(folder: ImageFolder, display: Display) -> None:
    """Say where a folder is not the data set whose name or domains it has: figures would not compare."""
    known = recognise(folder)
    differences = known.differences(folder) if known else []
    if known and differences:
        display.note(
            f"{folder.root} looks like {known.name} and is not all of it: {differences[0]} "
            f"`client data check` lists all {len(differences)} differences and what else is wrong."
        )


def _mention_recipe(folder: ImageFolder, recipe: Recipe, display: Display) -> None:
    """Say where the paper has another recipe for a data set than the one that is taken."""
    known = recognise(folder)
    if known and known.recipe != "paper" and recipe.is_protocol_of(PAPER):
        steps = RECIPES[known.recipe].steps
        display.note(
            f"{folder.root} looks like {known.name}, for which the paper takes {steps:,} steps a stage and "
            f"not {recipe.steps:,}: take --recipe {known.recipe}."
        )


def _mention_size(examples: Sequence[Example], image_size: int, display: Display) -> None:
    """Say where most of what the student sees would be enlargement (docs/experiments.md: what it costs)."""
    side = median_low(example.side for example in examples)
    slightly_larger = 32 * (side // 32 + 1)
    if image_size > max(2 * side, slightly_larger):
        display.note(
            f"Half of the images are {side} px or less on their shorter side, and the student sees them at "
            f"{image_size} px: --image-size {slightly_larger} is faster, and can be more accurate."
        )


def _mention_untaught(
    folder: ImageFolder, examples: Sequence[Example], train: Sequence[int], display: Display
) -> None:
    """Say which classes have images, and all of them held out."""
    without = {example.label for example in examples} - {examples[position].label for position in train}
    if without:
        names = ", ".join(folder.classes[label] for label in sorted(without))
        variants = ", or variants of one drawing (files named <set>__<name>)" if folder.grouped else ""
        display.note(
            f"All images of {names} are held out, and none is trained on: they are few{variants}. Add "
            "images, or take another --seed."
        )


def read_domain(
    folder: ImageFolder, domain: str, display: Display, shared: SharedWork
) -> tuple[list[Example], list[Skipped]]:
    """The images of a domain, and the files that are none; read once for all runs that share their work."""

    def read() -> tuple[list[Example], list[Skipped]]:
        with display.track(f"Reading {domain}", folder.count(domain)) as advance:
            return folder.read([domain], lambda done: advance(done, ""))

    return shared.once("images", f"{folder.root}/{domain}", read)[0]


def describe_plan(
    config: RunConfig,
    sources: Sources,
    model: ModelCard | None,
    plan: budget.Plan | None,
    outlook: Outlook | None = None,
) -> Plan:
    """What a run would use and buy, as `plan.json` holds it and `client plan --json` prints it."""
    root = sources.folder.root
    return Plan(
        method=config.method,
        target_domain=sources.target,
        source_domains=list(sources.domains),
        classes=list(sources.folder.classes),
        train_images=len(sources.train),
        holdout_images=len(sources.holdout),
        images_by_domain=dict(
            Counter(example.domain for example in sources.examples if example.view == ORIGINAL)
        ),
        left_out=counted(sources.skipped),
        skipped=[SkippedFile(path=relative(s.path, root), reason=s.reason) for s in sources.skipped],
        model=model,
        purchase=None if plan is None else PlannedPurchase.model_validate(plan.to_json()),
        outlook=outlook,
    )


def describe_views(sources: Sources) -> list[dict[str, Any]]:
    """The further views with their parameters and digests, as `views.jsonl` holds them, a line each."""
    return [
        {"image": relative(view.path, sources.folder.root), "digest": view.digest, **view.view.to_json()}
        for view in sources.examples
        if view.view != ORIGINAL
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
        display.note(f"Loose pictures are in no class: put them into {root}/<domain>/<class>/.")
    if len(by_reason) > 1 or len(skipped) > len(missed):
        display.note(f"Left out: {described(by_reason)}; {listed_in} lists them.")
