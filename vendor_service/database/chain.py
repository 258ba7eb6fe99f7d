"""Chains: rows that each carry the hash of the one before them, so that none is changed or removed unseen."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

# What the first row of a chain has for the hash of the one before it.
GENESIS_HASH = "0" * 64
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def row_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what a row says, `previous_hash` included, as canonical JSON.

    What is null or 0 is left out: a column that a later version adds leaves the hashes of old rows as they
    are.
    """
    said = {name: value for name, value in content.items() if value}
    return hashlib.sha256(_canonical(said).encode()).hexdigest()


def columns_of(row: Any, names: Iterable[str]) -> dict[str, Any]:  # noqa: ANN401 - a mapped row or a plain one
    """These columns of a row, by name."""
    return {name: getattr(row, name) for name in names}
