"""The lines of a bulk job's answers, whatever a vendor writes into them."""

from io import BytesIO

import pytest

from client.errors import VendorError
from client.vendors.bulk_lines import read_answers, read_refusals

_BODY = b'"response": {"body": {}}}'


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b'{"custom_id": Infinity, ' + _BODY,
        b'{"custom_id": 2, ' + _BODY,
        b'{"custom_id": "-1", ' + _BODY,
        b'{"custom_id": " 2", ' + _BODY,
        b'{"custom_id": "\xd9\xa2", ' + _BODY,  # a digit, and not one of ours
        b'{"custom_id": "' + b"9" * 5000 + b'", ' + _BODY,
        b'{"custom_id": ' + b"[" * 100_000,
        b'{"custom_id": "2", "response": {"body": ' + b"[" * 100_000,
        b'{"custom_id": "2", "response": {"body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"custom_id": "2", "response": null}',
    ],
    ids=lambda line: line[:40].decode("latin-1"),
)
def test_a_line_that_makes_no_sense_is_refused(line: bytes) -> None:
    with pytest.raises(VendorError, match="cannot be read"):
        list(read_answers(BytesIO(line + b"\n"), 3))
    with pytest.raises(VendorError, match="cannot be read"):
        read_refusals(BytesIO(line + b"\n"), 3)


def test_a_line_of_another_job_is_refused() -> None:
    with pytest.raises(VendorError, match="line 3 of a bulk job of 3 lines"):
        list(read_answers(BytesIO(b'{"custom_id": "3", ' + _BODY), 3))
