"""The data set of a run: the images of the source domains, those without labels, and what each is for."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from client.data.class_files import wording_of
from client.data.domains import ImageFolder
from client.data.examples import UNLABELLED, Example, read_files
from client.data.finder import COPY_OF_ANOTHER_DOMAIN, Skipped
from client.data.kept_images import is_named_as_kept
from client.data.listing import list_folder
from client.data.manifests import recognise
from client.data.names import relative
from client.data.pool import Pool, read_pool
from client.data.splits import Split, split
from client.data.wording import THEIR_OWN_NAMES, Wording
from client.errors import DataError
from client.learning.methods import known_method, method_of
from client.progress import Display
from client.purchase.selection import Stratum
from client.runs.config import RunConfig
from client.runs.digest import StageInputs
from client.runs.generations import NOTHING_SEEN, Seen, is_adapted, seen_before
from client.runs.memo import Memo
from client.runs.mentions import (
    mention_ambiguous,
    mention_differences,
    mention_kept,
    mention_one_sided,
    mention_recipe,
    mention_size,
    mention_wording,
)

# What a copy of a labelled image is left out as.
_LABELLED = "a labelled image"


@dataclass(frozen=True)
class Dataset:
    """The images of a run by position, and what each is for. What the teacher says of them lies beside it.

    Attributes:
        folder: the labelled images.
        target: the domain that is held out; `None` where every domain trains.
        domains: the source domains.
        examples: every image of these and, behind them, the unlabelled images.
        splits: what each of `examples` is for.
        skipped: labelled files that are left out, those of the target domain aside.
        seen: what the weights have seen that the run begins with.
        skipped_of_pools: files that are left out of the unlabelled images.
        in_turn: whether domains are held out in turn, so that `target` is not the one where a student works.
        wording: how the teacher is asked about the classes.
    """

    folder: ImageFolder
    target: str | None
    domains: tuple[str, ...]
    examples: tuple[Example, ...]
    splits: tuple[Split, ...]
    skipped: tuple[Skipped, ...]
    seen: Seen = NOTHING_SEEN
    skipped_of_pools: tuple[Skipped, ...] = ()
    in_turn: bool = False
    wording: Wording = THEIR_OWN_NAMES

    @property
    def left_out(self) -> tuple[Skipped, ...]:
        """All files that are left out, those of the target domain aside."""
        return self.skipped + self.skipped_of_pools

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.folder.classes

    @cached_property
    def taught_domains(self) -> tuple[str, ...]:
        """The source domains that have images to train on: a table may hold others out whole."""
        taught = {self.examples[position].domain for position in self.train}
        return tuple(domain for domain in self.domains if domain in taught)

    @cached_property
    def train(self) -> list[int]:
        """Positions of the labelled images to train on."""
        return self._positions("train")

    @cached_property
    def holdout(self) -> list[int]:
        """Positions of the images that are held out for selection."""
        return self._positions("holdout")

    @cached_property
    def unlabelled(self) -> list[int]:
        """Positions of the images without labels."""
        return self._positions("unlabelled")

    @cached_property
    def kept_pools(self) -> tuple[str, ...]:
        """The pools of images that a student was asked about where it works, as the names of all their files
        tell (`KeptImages`)."""
        named: dict[str, bool] = {}
        for example in map(self.examples.__getitem__, self.unlabelled):
            named[example.domain] = named.get(example.domain, True) and is_named_as_kept(example.path)
        return tuple(word for word, as_kept in named.items() if as_kept)

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
            told = (example.digest, example.domain, example.label, self.splits[position])
            digest.update(repr(told).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def without_copies(self, target: Sequence[Example]) -> tuple[list[Example], list[Skipped]]:
        """The images of the target domain that a student is tested on, and those that are left out.

        These are copies of labelled images of the source domains, whether a run learns from them all or not,
        so that the runs of a comparison are tested on the same images; and images that the weights have seen.
        """
        sources = (self.examples[position] for position in (*self.train, *self.holdout))
        copies = set(self.seen.copies_among(target, of=sources))
        return (
            [example for position, example in enumerate(target) if position not in copies],
            [
                Skipped(target[position].path, COPY_OF_ANOTHER_DOMAIN, domain=self.target)
                for position in sorted(copies)
            ],
        )

    def _positions(self, split: Split) -> list[int]:
        return [position for position, of in enumerate(self.splits) if of == split]


@dataclass(frozen=True)
class DomainInputs(StageInputs):
    """The inputs of a domain's images within one command, which reads each file once."""

    root: Path
    domain: str
    group_by_name: bool


@dataclass(frozen=True)
class PoolInputs(StageInputs):
    """The inputs of the unlabelled images within one command."""

    words: tuple[str, ...]
    root: Path
    target: str | None


def read_dataset(
    config: RunConfig,
    display: Display,
    memo: Memo | None = None,
    *,
    seen: Seen | None = None,
    fixed_splits: Mapping[Path, Split] = MappingProxyType({}),
    in_turn: bool = False,
) -> Dataset:
    """Read every domain but the target, if there is one, of which only file names are seen.

    Where weights that the run begins with have seen images, these are trained on; the target is read as well
    then, and refused if it has any of them (`Seen`). Notes say what is odd about the images (mentions.py).

    Args:
        config: the run.
        display: where to say it.
        memo: what it has in common with other runs, which is not read again; `None` for nothing.
        seen: what the weights have seen; `None` to look it up (`seen_before`).
        fixed_splits: the side of the files whose side is fixed, but for what a table says.
        in_turn: whether domains are held out in turn, and the run's is one of them.

    Raises:
        DataError: the folder, its domains or its classes are not what a run needs.
        UsageError: the run would be measured on images that the weights have seen, or were chosen by; or a
            file of prompts or names is none.
    """
    memo = memo or Memo()
    seen = seen_before(config, None, display) if seen is None else seen
    folder, domains = _listed(config, display)
    wording = wording_of(folder, templates=config.prompt, prompts=config.prompts, names=config.names)
    mention_wording(wording, folder.classes, display)
    if config.target_domain is not None and seen.is_anything and seen.refuses:
        seen.require_none_of(read_domain(folder, config.target_domain, display, memo)[0], config=config)
    examples, skipped = _read_sources(folder, domains, display, memo)
    mention_ambiguous(folder, examples, display)
    fixed_splits = seen.fixed_splits(examples, {**fixed_splits, **folder.splits}, config=config)
    _, held = split(examples, holdout=config.recipe.holdout, seed=config.seed, fixed_splits=fixed_splits)
    held_out = frozenset(held)
    dataset = Dataset(
        folder=folder,
        target=config.target_domain,
        domains=domains,
        examples=tuple(examples),
        splits=tuple("holdout" if i in held_out else "train" for i in range(len(examples))),
        skipped=(*folder.ignored_outside(config.target_domain), *skipped),
        seen=seen,
        in_turn=in_turn,
        wording=wording,
    )
    _require_taught(dataset, config)
    few = "too few that the weights have not seen" if seen.images.size else "too few"
    mention_one_sided(folder, examples, dataset.train, dataset.holdout, display, few=few)
    if config.pools:
        dataset = _with_pools(dataset, config, display, memo)
        if not in_turn:
            mention_kept([word for word in dataset.kept_pools if word in config.unlabelled], display)
    mention_size(dataset.examples, config.image_size, display)
    return dataset


def listed(config: RunConfig) -> ImageFolder:
    """The labelled set of a run.

    Raises:
        DataError: as `list_folder`.
    """
    return list_folder(
        config.data, group_by_name=config.group_by_name, layout=config.layout, columns=config.columns
    )


def _listed(config: RunConfig, display: Display) -> tuple[ImageFolder, tuple[str, ...]]:
    """The labelled set, and its source domains."""
    folder = listed(config)
    folder.require_classes()
    if known := recognise(folder):
        mention_differences(known, folder, display)
        mention_recipe(known, folder, config.recipe, display)
    domains = folder.source_domains(config.target_domain, needed=not config.pools)
    if not domains and not config.pools:
        raise DataError(
            f"{folder.root} names classes and no image: give images without labels with --unlabelled."
        )
    return folder, domains


def _read_sources(
    folder: ImageFolder, domains: Sequence[str], display: Display, memo: Memo
) -> tuple[list[Example], list[Skipped]]:
    """The images of the source domains, none of which may be without any, and the files that are none."""
    examples: list[Example] = []
    skipped: list[Skipped] = []
    for domain in domains:
        read, unread = read_domain(folder, domain, display, memo)
        if not read:
            raise _unreadable(folder, domain, unread, "train")
        examples += read
        skipped += unread
    return examples, skipped


def _require_taught(dataset: Dataset, config: RunConfig) -> None:
    """Refuse a run without an image to train on; the teacher's own row of a comparison needs none."""
    method = known_method(config.method)
    if dataset.train or method is None:
        return
    if config.pools and "images" not in method.asks:
        raise DataError(
            f"{method.name} asks nobody about an image, and no image of {dataset.folder.given} has a label "
            "to train on: give labelled images, or take another --method."
        )
    if not config.pools:
        raise DataError(
            f"{dataset.folder.given} has no image to train on: all {len(dataset.holdout)} readable images of "
            "the source domains are held out. Leave the `split` of some empty, or give images without labels "
            "with --unlabelled."
        )


def _with_pools(dataset: Dataset, config: RunConfig, display: Display, memo: Memo) -> Dataset:
    """The data set with unlabelled images, none of them a copy of a labelled image or of one to be tested on.

    For that the target domain is read, and nothing else is done with it; without a readable image it is
    refused, as it would be when a student is tested on it.
    """
    folder, target = dataset.folder, dataset.target
    if target is not None:
        tested, unread = read_domain(folder, target, display, memo)
        if not tested:
            raise _unreadable(folder, target, unread, "evaluate")
    options = {"--unlabelled": config.unlabelled, "--adapt": config.adapt}
    given = " ".join(f"{option} {' '.join(words)}" for option, words in options.items() if words)

    def read() -> Pool:
        known = {
            _LABELLED: folder.paths_in(dataset.domains),
            f"an image of {target}, which is tested on": folder.paths_in([target] if target else []),
        }
        facts = {what: read_files(paths, memo.files) for what, paths in known.items()}
        readable = {what: (each for each in of if not each.reason) for what, of in facts.items()}
        return read_pool(config.pools, readable, memo.files, display, given=given, columns=config.columns)

    pool, _ = memo.once(PoolInputs(config.pools, folder.root, target), read)
    unlabelled: list[Split] = ["unlabelled"] * len(pool.examples)
    return replace(
        dataset,
        examples=dataset.examples + pool.examples,
        splits=(*dataset.splits, *unlabelled),
        skipped_of_pools=pool.left_out,
    )


def _unreadable(folder: ImageFolder, domain: str, unread: Sequence[Skipped], use: str) -> DataError:
    """The error of a domain without a readable image to "train" or "evaluate" on."""
    return DataError(
        f"{folder.given} has no readable image in the domain {domain!r} to {use} on; the first: "
        f"{relative(unread[0].path, folder.root)}: {unread[0].reason}."
    )


def read_domain(
    folder: ImageFolder, domain: str, display: Display, memo: Memo
) -> tuple[list[Example], list[Skipped]]:
    """The images of a domain, and the files that are none; read once for all runs that share a memo."""

    def read() -> tuple[list[Example], list[Skipped]]:
        with display.track(f"Reading {domain}", folder.count(domain)) as advance:
            return folder.read([domain], lambda done: advance(done, ""), memo.files)

    return memo.once(DomainInputs(folder.root, domain, bool(folder.drawn)), read)[0]


def adapts(config: RunConfig, dataset: Dataset) -> bool:
    """Whether a run's student, or one that its weights come from, learns from images of the very domain where
    it will work: those of `--adapt`, and images that were kept, whatever they are given as."""
    return is_adapted(config) or (bool(dataset.kept_pools) and not dataset.in_turn)


def unseen(config: RunConfig, dataset: Dataset) -> int:
    """How many of the images without labels no step of the run would look at, so that they are not bought."""
    aligns = method_of(config.method).aligns
    most = config.recipe.most_unlabelled(
        domains=len(dataset.taught_domains), labelled=len(dataset.train), aligns=aligns
    )
    return 0 if most is None else max(0, len(dataset.unlabelled) - most)
