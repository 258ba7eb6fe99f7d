"""What a run logs, and what it forgets of it."""

from pathlib import Path

from client.runs.folder import RunFolder


def test_seconds_are_summed_over_interruptions_and_not_over_what_is_trained_anew(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log("align", seconds=2.0)
    run.log("distill", step=1, loss=0.5)
    run.log("distill", step=2, loss=0.4)
    run.log("distill", seconds=5.0)
    run.forget("distill", after_step=1)  # it goes on after an interruption
    run.log("distill", step=2, loss=0.3)
    run.log("distill", seconds=1.0)
    assert run.seconds() == {"align": 2.0, "distill": 6.0}
    run.forget("distill", after_step=0)
    run.log("distill", step=1, loss=0.5)
    run.log("distill", seconds=4.0)
    assert run.seconds() == {"align": 2.0, "distill": 4.0}
