"""Whatever arrives is answered as the contract says, and charged only if it is served."""

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.vendor_process import VendorProcess, resident_bytes
from tests.vendor_service import fuzzing
from tests.vendor_service.local_vendor import error_code

AT_ONCE = 4
SETTLED = 12.0  # seconds, in which the vendor gives back what it has freed


class Fuzzer:
    """Throws requests at a vendor, and counts what came back."""

    def __init__(self, vendor: VendorProcess) -> None:
        self.answers: Counter[str] = Counter()
        self._vendor = vendor
        self._key = vendor.create_key()
        self._sold: Counter[str] = Counter()

    def throw(self, seeds: Iterable[int]) -> None:
        """Send the requests of these seeds; each answer must be one that the contract knows."""
        with httpx.Client(base_url=self._vendor.url, timeout=60) as http, ThreadPoolExecutor(AT_ONCE) as pool:
            for seed, answer in pool.map(lambda seed: (seed, self._ask(http, seed)), seeds):
                if answer.status_code == 200:
                    usage = answer.json()["usage"]
                    self.answers["served"] += 1
                    self._sold.update(queries=usage["billed_queries"], cost_micros=usage["cost_micros"])
                else:
                    assert 400 <= answer.status_code < 500, f"seed {seed}: {answer.text}"
                    self.answers[error_code(answer)] += 1

    def check_books(self) -> None:
        """What was served is charged, and nothing else."""
        charged = self._vendor.charges(self._key)
        assert (charged.queries, charged.cost_micros) == (self._sold["queries"], self._sold["cost_micros"])
        assert charged.entries <= self.answers["served"]
        assert self._vendor.problem(self._key) is None

    def _ask(self, http: httpx.Client, seed: int) -> httpx.Response:
        return fuzzing.send(http, self._key, fuzzing.request(seed))


def test_mutated_requests_get_an_answer_of_the_contract_and_no_wrong_bill(
    vendor_process: VendorProcess,
) -> None:
    fuzzer = Fuzzer(vendor_process)
    fuzzer.throw(range(300))
    fuzzer.check_books()
    assert {"served", "invalid_image", "unsupported_image_format", "invalid_request"} <= set(fuzzer.answers)


@pytest.mark.slow
def test_ten_thousand_mutated_requests_leave_the_vendor_as_large_as_a_thousand_do(tmp_path: Path) -> None:
    with VendorProcess(tmp_path) as vendor:
        fuzzer = Fuzzer(vendor)
        fuzzer.throw(range(1000))
        time.sleep(SETTLED)
        before = resident_bytes(vendor.pid)
        fuzzer.throw(range(1000, 10_000))
        time.sleep(SETTLED)
        after = resident_bytes(vendor.pid)
        fuzzer.check_books()
    assert after < 1.05 * before, f"{before / 1e6:.0f} MB have become {after / 1e6:.0f} MB"
