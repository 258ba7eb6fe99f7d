"""Ed25519: what the paper of weak keys and ambiguous signatures warns of is refused."""

import json
from pathlib import Path

import pytest

from client.vendors.ed25519 import is_signed, is_strong

# Of "Taming the many EdDSAs" (Chalkias, Garillot and Nikolaenko, 2020), table 5: `cases.json` of
# https://github.com/novifinancial/ed25519-speccheck at 65519336fda78a3d016e947df6d82848aca0c9da (Apache 2.0).
CASES = json.loads((Path(__file__).parent / "eddsa_cases.json").read_text())
# Case 3 alone binds its signer: key and R have parts of small and of large order, and S is canonical.
RIGHT = {3}

# All ways to write the points of small order, https://github.com/C2SP/CCTV/blob/main/ed25519/README.md.
SMALL = [
    *("00" * 31 + end for end in ("00", "80")),
    *("01" + "00" * 30 + end for end in ("00", "80")),
    *(first + "ff" * 30 + end for first in ("ec", "ed", "ee") for end in ("7f", "ff")),
    *("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc" + end for end in ("05", "85")),
    *("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03" + end for end in ("7a", "fa")),
]


@pytest.mark.parametrize("number", range(12))
def test_every_case_of_the_paper_is_refused_that_binds_nobody(number: int) -> None:
    case = {name: bytes.fromhex(value) for name, value in CASES[number].items()}
    assert is_signed(case["message"], case["signature"], case["pub_key"]) == (number in RIGHT)


def test_no_point_of_small_order_is_a_key_or_part_of_a_signature_however_it_is_written() -> None:
    assert len(SMALL) == 14
    assert not any(is_strong(bytes.fromhex(each)) for each in SMALL)
    assert is_strong(bytes.fromhex(CASES[3]["pub_key"]))


def test_what_has_another_length_or_is_no_point_is_no_signature() -> None:
    case = {name: bytes.fromhex(value) for name, value in CASES[3].items()}
    for public, signature in (
        (b"", case["signature"]),
        (case["pub_key"] + b"\0", case["signature"]),
        (b"\2" + bytes(31), case["signature"]),  # y = 2 is on no point
        (case["pub_key"], case["signature"][:63]),
        (case["pub_key"], case["signature"] + b"\0"),
    ):
        assert not is_signed(case["message"], signature, public)
