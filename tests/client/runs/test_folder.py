"""What a run logs and forgets of it, and what it tells of its teacher."""

from pathlib import Path

import pytest

from client.errors import ClientError
from client.runs.folder import RunFolder
from tests.client.buying.cards import MODEL


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


def test_it_tells_of_the_model_that_it_began_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.began_with is None
    run.write(run.plan, {"model": None, "purchase": None})
    assert run.began_with is None
    run.write(run.plan, {"model": MODEL.model_dump(mode="json")})  # all that a comparison's plan has
    assert run.began_with == MODEL
    run.write(run.plan, {"model": {}})
    with pytest.raises(ClientError, match=r"plan\.json is not what this version of Tuition writes"):
        _ = run.began_with
