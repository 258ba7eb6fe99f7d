"""A finished student ends by an explicit yes and no sooner, and stands until its successor is whole."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from client.runs.folder import RunFolder
from tests.client.toy import draw, make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess

RUN = ("distill", "--data", "toy", "--target-domain", "red", "--out", "run", *TINY, "--image-size", "32")


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    make_folder(tmp_path / "toy", images=6)
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _erm(*more: str, steps: int = 2) -> list[str]:
    return [*RUN, "--method", "erm", "--steps", str(steps), *more]


def _files(run: Path) -> dict[str, bytes]:
    """What a finished run consists of, without its lock."""
    files = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def _add_image(client: Command, name: str = "added.png") -> None:
    draw("circle", "black", "white", seed=900 + len(name)).save(
        client.folder / "toy" / "dark" / "circle" / name
    )


def test_a_finished_student_is_replaced_only_by_an_explicit_yes(
    client: Command, vendor_process: VendorProcess
) -> None:
    command = [*RUN, "--steps", "2", "--budget", "500"]
    client(*command)
    run = client.folder / "run"
    before, charges = _files(run), vendor_process.charges(client.api_key)
    _add_image(client)
    refused = client(*command, code=2)
    assert "run holds a finished student of other numbers of images" in refused.stderr
    assert "Choose another --out for a new student, or add --replace" in refused.stderr
    assert _files(run) == before
    assert vendor_process.charges(client.api_key) == charges

    client(*command, "--replace")
    after = _files(run)
    assert after["student.safetensors"] != before["student.safetensors"]
    assert not (run / "replacement").exists()
    assert b"client export run --web run/web" in after["report.html"]
    assert {name for name in after if "tensorboard" not in name} == {
        name for name in before if "tensorboard" not in name
    }
    summary = json.loads(after["summary.json"])
    assert summary["train_images"] + summary["holdout_images"] == 37
    assert summary["queries_bought"] == vendor_process.charges(client.api_key).queries
    again = client(*command)
    assert "trained already" in again.stderr
    assert _files(run)["student.safetensors"] == after["student.safetensors"]


def test_ctrl_c_in_the_middle_keeps_the_old_one_and_the_same_command_goes_on(client: Command) -> None:
    client(*_erm(steps=60))
    run = client.folder / "run"
    before = _files(run)
    _add_image(client)
    with client.start(*_erm("--replace", steps=60)) as process:
        while not (run / "replacement" / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130, said
    left = {name: content for name, content in _files(run).items() if not name.startswith("replacement")}
    assert left == before
    image = "toy/red/circle/00.png"
    assert client("predict", "run", image).stdout
    assert "Going on after step" in client(*_erm("--replace", steps=60)).stderr
    assert _files(run)["student.safetensors"] != before["student.safetensors"]


@pytest.mark.usefixtures("onnx")
def test_a_question_on_a_terminal_may_be_answered_and_a_replacement_is_put_in_place_whole(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The student is put in place whole, whenever that is interrupted."""
    client(*_erm())
    _add_image(client)
    moves = 0
    move = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal moves
        moves += path.parent.name == "replacement" and target.parent.name == "run"
        if moves == 3:
            raise KeyboardInterrupt
        return move(path, target)

    answers = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        patch.setattr("typer.confirm", lambda *_, **__: next(answers))
        assert "left as it is" in client(*_erm(), code=2).stderr
        patch.setattr(Path, "replace", interrupted)
        client(*_erm(), code=130)
    assert (client.folder / "run" / "replacement").exists()
    assert "trained already" in client(*_erm()).stderr
    run = RunFolder(client.folder / "run")
    assert not run.replacement.path.exists()
    assert run.read(run.summary)["train_images"] + run.read(run.summary)["holdout_images"] == 37
    assert run.onnx.exists()


def test_weights_are_read_before_a_run_begins_and_its_student_is_for_whom_the_umask_lets(
    client: Command,
) -> None:
    refused = client(*_erm("--student-weights", "wieghts.safetensors"), code=2)
    assert "wieghts.safetensors is not a file" in refused.stderr
    assert not (client.folder / "run").exists()
    (client.folder / "bad.safetensors").write_bytes(b"no weights")
    client(*_erm("--student-weights", "bad.safetensors"), code=2)
    before = os.umask(0o022)
    try:
        client(*_erm())  # nothing was there yet, so the weights can be corrected
        client("export", "run", "--out", "out.safetensors")
    finally:
        os.umask(before)
    for file in ("run/student.safetensors", "out.safetensors"):
        assert (client.folder / file).stat().st_mode & 0o777 == 0o644
    assert load_file(client.folder / "out.safetensors")
    assert "seed: 0 -> 3" in client(*_erm("--seed", "3"), code=2).stderr
