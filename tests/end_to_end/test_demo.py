"""`make demo`'s script on a toy folder: it buys once, and leaves nothing running."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from examples import demo
from tests.client.folders import write_trusted
from tests.client.toy import draw, make_folder, tiny_student
from tests.support.forking import forked_programs
from tests.support.vendor_process import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what is left running")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A demo's folder, in one whose settings name a small student."""
    home = tmp_path / ".demo"
    tiny = tiny_student(tmp_path)
    settings = f"student = {tiny['student']!r}\nstudent_weights = {tiny['student_weights'].name!r}\n"
    write_trusted(settings, tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "runs.csv").write_text(
        "comparison,method,target,in_domain,out_of_domain\n"
        + f"some-{tiny['student']}-32px-4,erm,red,0.625,0.375\n" * 2
        + f"some-{tiny['student']}-32px-4,erm,blue,1,1\n"
        + f"some-{tiny['student']}-32px-40,erm,red,1,1\n"
        + f"some-{tiny['student']}-32px-4,kd,red,1,1\n"
    )
    make_folder(home / "icons", images=6)
    for style in ("blue", "red"):  # the style that is held out has to stay out
        folder = home / "unlabelled" / style
        folder.mkdir(parents=True)
        for number in range(4):
            draw("circle", "white", style, seed=9000 + number).save(folder / f"{number}.png")
    return home


def _start(
    home: Path, steps: int, also: tuple[str, ...] = (), programs: Path = demo.PROGRAMS
) -> "subprocess.Popen[str]":
    script = f"""
        import sys
        from pathlib import Path
        from examples import demo
        demo.HOME, demo.TARGET = Path({str(home)!r}), "red"
        demo.ROOT, demo.PROGRAMS = Path({str(home.parent)!r}), Path({str(programs)!r})
        demo.IMAGE_SIZE, demo.STEPS = 32, {steps}
        sys.exit(demo.main(["--also", *{also!r}]))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=demo.ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _vendor_pids(home: Path) -> list[str]:
    """The processes that have the demo's books open by their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(home / "vendor.db").encode() in environment.read_bytes():
                found.append(environment.parent.name)
        except OSError:
            continue
    return found


def test_what_an_interruption_left_unpacked_is_not_taken_for_a_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "client" / "data" / "bundled"
    bundled.mkdir(parents=True)
    for name in ("icons", "unlabelled"):
        with ZipFile(bundled / f"{name}.zip", "w") as archive:
            for number in range(3):
                archive.writestr(f"{name}/red/{number}.png", b"")
    home = tmp_path / ".demo"
    home.mkdir()
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "HOME", home)

    def interrupted(archive: ZipFile, path: str) -> None:
        archive.extract("icons/red/0.png", path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ZipFile, "extractall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.unpack()
    assert not list(home.iterdir())
    demo.unpack()
    assert {each.name for each in home.iterdir()} == {"icons", "unlabelled"}
    assert len(list(home.glob("*/red/*.png"))) == 6


@pytest.mark.long
def test_the_demo_buys_once_and_shows_its_table(home: Path, tmp_path: Path) -> None:
    for number, also, expected in (
        (1, ("erm",), ["Bought 35 queries", "Training by erm"]),
        (2, (), ["Bought nothing: every embedding came from the cache.", "erm*", "62.5", "37.5", "2 seeds"]),
    ):
        with forked_programs(tmp_path / str(number)) as programs:
            process = _start(home, 4, also, programs)
            out, _ = process.communicate()
        assert process.returncode == 0, out
        assert all(words in out for words in expected), out
        assert ("on record" in out) == (not also)
        assert "red (unseen)" in out
        assert "4 steps" in out
        assert (home / f"vl2v-adip-{number}" / "report.html").exists()
    assert not _vendor_pids(home)


@pytest.mark.parametrize(
    ("stop", "how"),
    [
        pytest.param(os.killpg, signal.SIGINT, id="Ctrl-C"),
        pytest.param(os.kill, signal.SIGTERM, id="SIGTERM"),
    ],
)
@pytest.mark.slow
def test_an_interrupted_demo_leaves_nothing_running_and_says_that_it_goes_on(
    home: Path, stop: Callable[[int, int], None], how: int
) -> None:
    process = _start(home, steps=4000)
    wait_until(lambda: (home / "vl2v-adip-1" / "metrics.jsonl").exists(), seconds=180)
    assert _vendor_pids(home)
    stop(process.pid, how)
    out, _ = process.communicate()
    assert process.returncode == 130, out
    assert "continues from here" in out
    assert not _vendor_pids(home)
    assert not (home / "vl2v-adip-2").exists()
