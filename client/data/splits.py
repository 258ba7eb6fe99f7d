"""Which images are trained on, and which are held out for selection."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from client.data.example import Example
from client.errors import DataError


def split(examples: Sequence[Example], *, holdout: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions to train on and positions held out for selection: a share `holdout` of each domain.

    Variants of one drawing, and files with the same bytes, stay on one side, in whatever domain they are,
    or in-domain accuracy would be flattered. The same seed gives the same split, and a domain is split alike
    whichever others stand beside it (but for drawings that they share): over all targets, an image that no
    run trains on need not be bought.

    Raises:
        DataError: a domain has too few images to hold any out.
    """
    groups = _groups(examples)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"split:{seed}:{group}".encode()).digest())
    wanted = {name: holdout * n for name, n in Counter(e.domain for e in examples).items()}
    held: list[int] = []
    for group in order:
        inside = Counter(examples[i].domain for i in groups[group])
        if all(wanted[name] >= n / 2 for name, n in inside.items()):
            held += groups[group]
            wanted = {name: left - inside[name] for name, left in wanted.items()}
    train = sorted(set(range(len(examples))) - set(held))
    for name in wanted:
        sides = [any(examples[i].domain == name for i in side) for side in (train, held)]
        if not all(sides):
            raise DataError(f"The domain {name!r} has too few images to train on some and hold some out.")
    return train, sorted(held)


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
