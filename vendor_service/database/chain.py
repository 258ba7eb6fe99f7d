"""Chains: rows that each carry the hash of the one before them, so that none is changed or removed unseen."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

# What the first row of a chain has for the hash of the one before it.
GENESIS_HASH = "0" * 64
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def row_hash(row: Any, columns: Sequence[str]) -> str:  # noqa: ANN401 - a mapped row or a plain one
    """SHA-256 (hex) of these columns of a row, `previous_hash` among them, as canonical JSON.

    What is NULL is left out: a column that a later version adds leaves the hashes of old rows as they are.
    """
    content = {name: value for name in columns if (value := getattr(row, name)) is not None}
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
