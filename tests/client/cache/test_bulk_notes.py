"""What bulk jobs hold back from others."""

from pathlib import Path
from typing import Any

import pytest

from client.cache import bulk_notes
from client.cache.bulk_notes import BulkNote
from client.cache.cache import EmbeddingCache
from client.cache.pending import Payer
from client.vendors.query import Query
from shared.embeddings import Prices


def test_what_jobs_have_is_read_once_and_not_held_back_from_who_passes_them_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [Query.text("a"), Query.text("b")]
    prices = Prices(image_micros=50, text_micros=10)
    note = BulkNote("bulk-1", "run", "fp_1", "http://vendor:80", "a", prices, (tuple(queries),), 0.0)
    parsed: list[Any] = []
    lines = bulk_notes._lines

    def noted(content: Any, *rest: Any) -> tuple[tuple[Query, ...], ...]:
        parsed.append(content)
        return lines(content, *rest)

    with EmbeddingCache(tmp_path / "cache.db") as cache:
        cache.begin_job(note, alive=lambda _: False)
        monkeypatch.setattr(bulk_notes, "_lines", noted)
        cache.bulk_notes.pass_over(note, "b")
        held = [
            cache.bulk_notes.held_now(Payer(vendor, key), "fp_1", queries[:1])
            for vendor, key in (
                ("http://vendor:80", "a"),
                ("http://vendor:80", "a"),
                ("http://vendor:80", "b"),
                ("http://other:80", "a"),
            )
        ]
    assert held == [{queries[0]}, {queries[0]}, set(), set()]
    assert len(parsed) == 1
