"""What commands say to people: no text from a vendor or a file drives the terminal."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import typer

from client.api.account import AccountUsage
from client.cli.command import on_terminal
from client.cli.main import main
from client.cli.tables import print_summary, print_usage
from shared.billing import AccountStatus, UsageReport, UsageRow

if TYPE_CHECKING:
    from client.api.distillation import Run

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\u202e"


def test_an_accounts_name_and_currency_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    row = UsageRow(group="g", requests=0, images=0, texts=0, billed_queries=0, cost_micros=0)
    account = AccountStatus(
        account=f"a{HOSTILE}", plan="p", status="active", quota=None, quota_period="month", queries_used=0,
        queries_held=0, resets_at=None, spend_limit_micros=None, spent_micros=0, credit_micros=None,
        rate_limit=None, currency=f"c{HOSTILE}",
    )  # fmt: skip
    usage = UsageReport(account="a", group_by="day", rows=[row], total=row)
    print_usage(AccountUsage(account=account, usage=usage))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Account a{SHOWN}: no quota, 0.000000 c{SHOWN} spent."


def test_domains_and_a_currency_of_a_run_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"d{HOSTILE}"
    accuracy = SimpleNamespace(
        by_domain={name: 0.5},
        images_by_domain={name: 2},
        in_domain=None,
        out_of_domain=None,
        intervals_by_domain={name: (0.1, 0.9)},
    )
    summary = SimpleNamespace(
        accuracy=accuracy, weights_known=True, adapted=False, target_domain=None, leave_one_out={name: 0.5},
        leave_one_out_intervals={},
        cost_micros=0, teacher=SimpleNamespace(currency=f"c{HOSTILE}"), queries_bought=0, queries_cached=0,
        unlabelled_images=0, left_out={},
    )  # fmt: skip
    run = SimpleNamespace(summary=summary, report=Path(name, "report.html"), weights=Path("s.safetensors"))
    print_summary(cast("Run", run))
    shown = capsys.readouterr().out
    assert f"without one (d{SHOWN} 50.0)." in shown
    assert f"0.000000 c{SHOWN};" in shown
    assert f"Report:  d{SHOWN}/report.html\nStudent: s.safetensors\n" in shown
    assert set(HOSTILE).isdisjoint(set(shown) - set(SHOWN))


def test_a_question_is_escaped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=lambda *_: "y\n"))
    ask = on_terminal()
    assert ask is not None
    assert ask(f"{HOSTILE} Go on?")
    assert f"{SHOWN} Go on? [y/N]" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "kind"), [(KeyboardInterrupt, KeyboardInterrupt), (EOFError, typer.Abort)])
def test_ctrl_c_at_a_question_interrupts_and_the_end_of_input_does_not(
    monkeypatch: pytest.MonkeyPatch, typed: type[BaseException], kind: type[BaseException]
) -> None:
    def read(*_: object) -> str:
        raise typed

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=read))
    ask = on_terminal()
    assert ask is not None
    with pytest.raises(kind):
        ask("Go on?")


def test_what_a_student_is_called_is_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(*_: object, announce: Any, **__: object) -> bool:
        announce("http://127.0.0.1:8080", f"student {HOSTILE}")
        return False

    monkeypatch.setattr("client.api.serving.serve", serve)
    with pytest.raises(SystemExit):
        main(["serve", "student.onnx"])
    assert f"ready on http://127.0.0.1:8080 (student {SHOWN})" in capsys.readouterr().out
