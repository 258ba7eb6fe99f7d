"""VL2V-ADiP against ERM on the bundled icons: leave one domain out, several seeds, over a real vendor.

    make bench-accuracy

Prints the table of docs/results.md. Runs are kept in benchmarks/.runs, and finished ones are not run again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from tests.vendor_process import VendorProcess

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / ".runs"
METHODS = ("erm", "vl2v-adip")


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["emoji", "pixel"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=64)
    arguments = parser.parse_args()

    RUNS.mkdir(exist_ok=True)
    if not (RUNS / "icons").exists():
        with zipfile.ZipFile(ROOT / "examples" / "icons.zip") as archive:
            archive.extractall(RUNS)
    summaries = []
    with TemporaryDirectory() as books, VendorProcess(Path(books)) as vendor:
        environment = os.environ | {
            "TUITION_VENDOR_URL": vendor.url,
            "TUITION_API_KEY": vendor.create_key(),
            "TUITION_CACHE": str(RUNS / "cache.db"),
        }
        for target in arguments.targets:
            for seed in range(arguments.seeds):
                for method in METHODS:
                    summaries.append(run(method, target, seed, arguments.image_size, environment))
    print(table(summaries))


def run(method: str, target: str, seed: int, image_size: int, environment: dict[str, str]) -> dict[str, Any]:
    """One run of `client distill`; its summary."""
    out = RUNS / f"{method}-{target}-{seed}-{image_size}"
    if not (out / "summary.json").exists():
        print(f"{method}, {target} held out, seed {seed} ...", file=sys.stderr, flush=True)
        where = ["--data", str(RUNS / "icons"), "--target-domain", target, "--out", str(out)]
        how = ["--method", method, "--seed", str(seed), "--budget", "5000", "--image-size", str(image_size)]
        command = [sys.executable, "-c", "from client.cli import main; main()", "distill", *where, *how]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def table(summaries: list[dict[str, Any]]) -> str:
    """Markdown: mean and sample deviation over seeds, accuracies in %."""
    columns = ("target", "method", "in-domain", "out-of-domain", "worst domain", "queries a run", "seconds")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    targets = list(dict.fromkeys(summary["target_domain"] for summary in summaries))
    for target in targets:
        lines += [row(target, method, summaries) for method in METHODS]
    for name in ("in_domain", "out_of_domain"):
        by_method = {m: fmean(values(summaries, name, method=m)) for m in METHODS}
        gain = by_method["vl2v-adip"] - by_method["erm"]
        means = ", ".join(f"{method} {mean:.1f}" for method, mean in by_method.items())
        lines.append(f"\nMean {name.replace('_', '-')} over {', '.join(targets)}: {means} ({gain:+.1f}).")
    steps = {summary["steps"] for summary in summaries}
    lines.append(f"\nSteps: {steps}. Machine: {os.cpu_count()} cores, {platform.machine()}.")
    return "\n".join(lines)


def row(target: str, method: str, summaries: list[dict[str, Any]]) -> str:
    """One method on one target."""
    chosen = [s for s in summaries if s["target_domain"] == target and s["method"] == method]
    worst = [100 * min(s["accuracy"]["by_domain"].values()) for s in chosen]
    queries = [s["queries_bought"] + s["queries_cached"] for s in chosen]
    seconds = [s["seconds"]["distill"] for s in chosen]
    cells = [
        target,
        method,
        spread(values(chosen, "in_domain")),
        spread(values(chosen, "out_of_domain")),
        spread(worst),
        f"{fmean(queries):.0f}",
        f"{fmean(seconds):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def values(summaries: list[dict[str, Any]], name: str, *, method: str | None = None) -> list[float]:
    """An accuracy in % of each summary (of one method)."""
    return [100 * float(s["accuracy"][name]) for s in summaries if method in (None, s["method"])]


def spread(numbers: list[float]) -> str:
    """Mean and sample deviation."""
    deviation = f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.1f}{deviation}"


if __name__ == "__main__":
    main()
