"""The target domain is not opened before evaluation, by whatever method."""

import sys
from pathlib import Path
from typing import Any

import pytest

from client.runs import conclusion, evaluation
from tests.client.toy import make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess


@pytest.mark.parametrize(
    ("method", "student"),
    [
        ("vl2v-adip", TINY),
        ("linear-probe+swad", TINY),
        ("vl2v-sd", ("--student", "open_clip:icon-clip")),
    ],
)
def test_the_target_is_unreadable_until_it_is_evaluated(
    vendor_process: VendorProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    student: tuple[str, ...],
) -> None:
    """Its files are links to nowhere, and an audit hook watches, until the evaluation begins."""
    red = make_folder(tmp_path / "toy", images=5) / "red"
    files = sorted(red.glob("*/*"))
    for file in files:
        kept = tmp_path / "kept" / file.relative_to(red)
        kept.parent.mkdir(parents=True, exist_ok=True)
        file.rename(kept)
        file.symlink_to(tmp_path / "given" / file.relative_to(red))
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(red) in str(arguments[0]):
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    evaluate = evaluation.read_for_evaluation

    def give_the_target(*arguments: Any) -> Any:
        nonlocal watching
        watching = False
        (tmp_path / "kept").rename(tmp_path / "given")
        return evaluate(*arguments)

    monkeypatch.setattr(conclusion, "read_for_evaluation", give_the_target)
    client = Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=100))
    how = ("--method", method, *student, "--image-size", "32", "--steps", "2", "--budget", "100")
    shown = client("distill", "--data", "toy", "--target-domain", "red", "--out", "run", *how)
    assert not opened
    assert "red (unseen)" in shown.stdout
    assert not watching
