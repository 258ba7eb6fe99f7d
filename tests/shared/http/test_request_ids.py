"""Ids of requests are UUIDs of version 7, in the order of their time."""

import time
import uuid
from datetime import UTC, datetime

import pytest

from shared.http.middleware import new_request_id


def test_an_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    before, identifier, after = time.time_ns(), new_request_id(), time.time_ns()
    parsed = uuid.UUID(identifier.removeprefix("req_"))
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before // 1_000_000 <= parsed.int >> 80 <= after // 1_000_000


def test_no_two_are_the_same_and_later_ones_stand_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2026, 2027, 2060, 2500)]
    found = []
    for moment in moments:
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: int(moment) * 10**9)
        found.append({new_request_id() for _ in range(1_000)})
    assert [len(each) for each in found] == [1_000] * 4
    assert sorted(set().union(*found)) == [each for ids in found for each in sorted(ids)]
    assert {len(each) for ids in found for each in ids} == {len("req_") + 32}
