"""Which images are trained on, and which are held out for selection."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from client.data.examples import Example

Split = Literal["train", "holdout", "unlabelled"]


def split(
    examples: Sequence[Example],
    *,
    holdout: float,
    seed: int,
    fixed_splits: Mapping[Path, Split] = MappingProxyType({}),
) -> tuple[list[int], list[int]]:
    """Positions to train on and positions held out for selection: a share `holdout` of each domain.

    Variants of one drawing, and files with the same bytes, stay on one side, in whatever domain they are, or
    in-domain accuracy would be flattered. The last images of a class are not held out: a class that is not
    trained on is never right. So a class of one image, or a domain of one, has no hold-out. Images that are
    fixed as held out count among the share, and all of a class may be. The same seed gives the same split,
    and a domain is split alike whichever others stand beside it (but for drawings and rare classes that they
    share): over all targets, an image that no run trains on need not be bought.
    """
    groups = _groups(examples)
    as_fixed = _held_as_fixed(examples, groups, fixed_splits) if fixed_splits else {}
    held = {position for positions in as_fixed.values() for position in positions}
    order = sorted(
        groups.keys() - as_fixed.keys(),
        key=lambda group: hashlib.sha256(f"split:{seed}:{group}".encode("utf-8", "surrogateescape")).digest(),
    )
    fixed = [examples[i] for i in held]
    wanted = {name: holdout * n for name, n in Counter(each.domain for each in examples).items()}
    held_of = Counter(each.domain for each in fixed)
    wanted = {name: share - held_of[name] for name, share in wanted.items()}
    left = Counter(each.label for each in examples) - Counter(each.label for each in fixed)
    for group in order:
        members = [examples[i] for i in groups[group]]
        inside, labels = Counter(e.domain for e in members), Counter(e.label for e in members)
        has_room = all(wanted[name] >= n / 2 for name, n in inside.items())
        if has_room and all(n < left[label] for label, n in labels.items()):
            held |= set(groups[group])
            wanted = {name: share - inside[name] for name, share in wanted.items()}
            left -= labels
    return sorted(set(range(len(examples))) - held), sorted(held)


def never_parted(
    examples: Sequence[Example], *, fixed_splits: Mapping[Path, Split] = MappingProxyType({})
) -> list[tuple[str, str]]:
    """A key for each image: those that share it are on one side of a split, whatever its share and seed."""
    groups = _groups(examples)
    as_fixed = _held_as_fixed(examples, groups, fixed_splits)
    keys = [("", "")] * len(examples)
    for group, positions in groups.items():
        for i in positions:
            is_fixed = group in as_fixed
            keys[i] = ("", "holdout" if i in as_fixed[group] else "train") if is_fixed else (group, "")
    return keys


def halves(examples: Sequence[Example]) -> list[int]:
    """The half of each image, 0 or 1, as even in each domain as can be: variants of a drawing share one."""
    groups, half_of = _groups(examples), [0] * len(examples)
    images = Counter[tuple[int, str]]()
    for group in sorted(groups, key=lambda name: hashlib.sha256(os.fsencode(f"half:{name}")).digest()):
        domains = [examples[position].domain for position in groups[group]]
        half = min((0, 1), key=lambda each: sum(images[each, domain] for domain in domains))
        images.update((half, domain) for domain in domains)
        for position in groups[group]:
            half_of[position] = half
    return half_of


def _held_as_fixed(
    examples: Sequence[Example], groups: Mapping[str, Sequence[int]], fixed_splits: Mapping[Path, Split]
) -> dict[str, list[int]]:
    """The positions that are held out of each group of which a side is fixed."""
    found = {}
    for group, positions in groups.items():
        paths = [examples[i].path for i in positions]
        if sides := {fixed_splits[path] for path in paths if path in fixed_splits}:
            known = zip(positions, paths, strict=True)
            found[group] = [i for i, path in known if fixed_splits.get(path, min(sides)) == "holdout"]
    return found


def _groups(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Positions by drawing, drawings that share a file's bytes merged (union-find over drawing names)."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    by_digest: dict[str, str] = {}
    for example in examples:
        first = by_digest.setdefault(example.digest, example.drawing)
        parent[find(example.drawing)] = find(first)
    groups: dict[str, list[int]] = defaultdict(list)
    for position, example in enumerate(examples):
        groups[find(example.drawing)].append(position)
    return groups
