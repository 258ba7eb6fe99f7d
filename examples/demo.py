"""The whole of Tuition on one machine: a vendor, a key, a budget, and a student of the bundled images.

`make demo` runs it. Fine-tuning is quoted from the runs on record; `make demo ALSO=erm` trains by it as well.
Everything it makes is under `.demo/`. Run again, it finds every embedding in the cache.
"""

import argparse
import csv
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
PROGRAMS = Path(sys.executable).parent
TARGET = "emoji"
QUOTA = 10_000
BUDGET = 7000  # reaches the labelled images, and all those without labels
METHOD = "vl2v-adip"
BASELINE = "erm"  # fine-tuning, on record in benchmarks/runs.csv; learns from labels alone
IMAGE_SIZE, STEPS = 96, 400

console = Console(stderr=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is that of the first command that failed, or 130 after an interruption."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--also", nargs="*", default=[], metavar="METHOD", help="train by these first")
    methods = [*parser.parse_args(arguments).also, METHOD]
    started = time.monotonic()
    HOME.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as after Ctrl-C, vendor and all
    try:
        with vendor() as url:
            environment = {
                **os.environ,
                "TUITION_VENDOR_URL": url,
                "TUITION_API_KEY": new_api_key(),
                "TUITION_CACHE": str(HOME / "cache.db"),
            }
            unpack()
            runs = {method: distill(method, STEPS, environment) for method in methods}
            step("What the vendor says was used")
            run("client", "usage", environment=environment)
        show(runs, seconds=time.monotonic() - started)
    except subprocess.CalledProcessError as error:
        if error.returncode not in (130, -signal.SIGINT):
            console.print(f"[red]{Path(error.cmd[0]).name} {error.cmd[1]} failed; its message is above.[/]")
            return int(error.returncode)
        return interrupted()
    except KeyboardInterrupt:
        return interrupted()
    return 0


def interrupted() -> int:
    """Say that nothing is lost."""
    console.print("Stopped. Nothing is left running; `make demo` continues from here.")
    return 130


def step(text: str) -> None:
    """Announce a step."""
    console.rule(f"[bold]{text}", align="left")


def shown(path: Path) -> str:
    """A path as a person in the project's folder would type it."""
    return os.path.relpath(path, ROOT)


def run(program: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run one of the two commands as a person would, its output going where ours goes."""
    console.print(f"[dim]$ {program} {' '.join(arguments)}[/]")
    subprocess.run([str(PROGRAMS / program), *arguments], check=True, cwd=ROOT, env=environment)


def ask_vendor(*arguments: str) -> Any:  # noqa: ANN401 (whatever the JSON is)
    """Run a `vendor` command on the demo's database and read its JSON."""
    command = [str(PROGRAMS / "vendor"), *arguments, "--json"]
    done = subprocess.run(command, check=True, cwd=ROOT, env=vendor_environment(), stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def vendor_environment() -> dict[str, str]:
    """The environment that points the `vendor` command at the demo's own database."""
    return {**os.environ, "VENDOR_DATABASE_URL": f"sqlite:///{HOME / 'vendor.db'}"}


@contextmanager
def vendor() -> Iterator[str]:
    """A vendor on a free port; its URL. Stopped on the way out, however that is taken."""
    step("Starting a vendor that sells the bundled model, icon-clip")
    process = subprocess.Popen(
        [str(PROGRAMS / "vendor"), "serve", "--port", "0"],
        cwd=ROOT,
        env=vendor_environment(),
        stdout=subprocess.PIPE,
        stderr=(HOME / "vendor.log").open("w"),
        text=True,
        start_new_session=True,
    )
    try:
        yield ready_url(process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()


def ready_url(process: "subprocess.Popen[str]") -> str:
    """Wait for the line that says where the vendor listens."""
    assert process.stdout is not None
    for line in process.stdout:
        if "ready on " in line:
            console.print(line.strip())
            return line.partition("ready on ")[2].split()[0]
    console.print(f"[red]The vendor did not start. {HOME / 'vendor.log'} ends with:[/]")
    console.print((HOME / "vendor.log").read_text()[-2000:], markup=False)
    raise subprocess.CalledProcessError(1, ["vendor", "serve"])


def new_api_key() -> str:
    """A key of the demo's account, which is created, with its quota, the first time."""
    if not any(account["account"] == "demo" for account in ask_vendor("accounts", "list")):
        ask_vendor("accounts", "create", "demo", "--quota", str(QUOTA), "--period", "total")
    else:
        ask_vendor("accounts", "set", "demo", "--quota", str(QUOTA))
    console.print(f"Account demo, quota {QUOTA} queries in all; a new key for this run.")
    key: str = ask_vendor("keys", "create", "demo", "--label", secrets.token_hex(4))["api_key"]
    return key


def unpack() -> None:
    """Unpack the bundled images, with and without labels, where none are: a set whole, or not at all."""
    for name in ("icons", "unlabelled"):
        if not (HOME / name).exists():
            archive = zipfile.ZipFile(ROOT / "client" / "data" / "bundled" / f"{name}.zip")
            with archive, TemporaryDirectory(dir=HOME) as part:
                archive.extractall(part)
                (Path(part) / name).rename(HOME / name)


def distill(method: str, steps: int, environment: dict[str, str]) -> Path:
    """Run `client distill`; an unfinished run is resumed, a finished one is left and another begun."""
    step(f"Training by {method}, {TARGET} held out, {steps} steps")
    number = 1
    while (HOME / f"{method}-{number}" / "summary.json").exists():
        number += 1
    out = HOME / f"{method}-{number}"
    where = [
        "--data",
        shown(HOME / "icons"),
        "--target-domain",
        TARGET,
        "--out",
        shown(out),
    ]
    if method != BASELINE:
        styles = sorted(each for each in (HOME / "unlabelled").iterdir() if each.is_dir())
        for style in styles:
            where += ["--unlabelled", shown(style)] if style.name != TARGET else []
    how = f"--method {method} --budget {BUDGET} --image-size {IMAGE_SIZE} --steps {steps}".split()
    run("client", "distill", *where, *how, environment=environment)
    return out


def show(runs: dict[str, Path], *, seconds: float) -> None:
    """The result table, and where the report and the student are."""
    summaries = {method: json.loads((path / "summary.json").read_text()) for method, path in runs.items()}
    table = Table(title=f"Trained without {TARGET}, then asked about it (accuracy in %, one seed)")
    for column in (
        "method",
        "in-domain",
        f"{TARGET} (unseen)",
        "bought",
        "from cache",
        "cost (micros)",
        "steps",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    known = on_record(summaries[METHOD]["student"]) if BASELINE not in runs else []
    if known:
        means = (f"{100 * fmean(shares):.1f}" for shares in zip(*known, strict=True))
        table.add_row(f"{BASELINE}*", *means, "0", "0", "0", str(STEPS))
    for method, summary in summaries.items():
        accuracy = summary["accuracy"]
        table.add_row(
            method,
            f"{100 * accuracy['in_domain']:.1f}",
            f"{100 * accuracy['out_of_domain']:.1f}",
            str(summary["queries_bought"]),
            str(summary["queries_cached"]),
            str(summary["cost_micros"]),
            str(summary["steps"]),
        )
    console.print()
    Console().print(table)
    if known:
        print(f"* the mean of {len(known)} seeds on record; `make demo ALSO={BASELINE}` trains by it here.")
    best = runs[METHOD]
    if summaries[METHOD]["queries_bought"] == 0:
        print("Bought nothing: every embedding came from the cache.")
    print(f"Report:  {shown(best / 'report.html')}")
    print(f"Student: {shown(best / 'student.safetensors')}")
    print(f"Took {seconds:.0f} seconds. One seed is an anecdote: docs/results.md has every style.")


def on_record(student: str) -> list[tuple[float, float]]:
    """Fine-tuning on record, with this student, the same images and as many steps: its accuracy in-domain and
    on the target, for each seed."""
    setting = f"-{student}-{IMAGE_SIZE}px-{STEPS}"
    with (ROOT / "benchmarks" / "runs.csv").open(encoding="utf-8", newline="") as file:
        return [
            (float(line["in_domain"]), float(line["out_of_domain"]))
            for line in csv.DictReader(file)
            if line["comparison"].endswith(setting) and (line["method"], line["target"]) == (BASELINE, TARGET)
        ]


if __name__ == "__main__":
    sys.exit(main())
