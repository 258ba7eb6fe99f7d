"""What the paper's experiments take in queries and money, for trees with the data sets' real counts."""

import argparse
import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from client.cli.main import app
from client.data.manifests import MANIFESTS, Manifest
from tests.support.vendor_process import VendorProcess

# A step takes 32 images of each source domain and asks about each anew, when it aligns and when it distils.
IMAGES_A_DOMAIN = 32
STAGES = 2
STEPS = {"DomainNet": 15_001}
USUAL_STEPS = 5_001


def main() -> None:
    """Make a tree of each data set, ask for the price of its experiments, and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [manifest.name for manifest in MANIFESTS]
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    print("| data set | images | one target | all targets, 1 seed | 3 seeds | cost of 3 seeds | per-step |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, VendorProcess(Path(name)) as vendor:
        key = Path(name) / "key"
        key.write_text(vendor.create_key())
        for manifest in MANIFESTS:
            if manifest.name in options.data:
                folder = _tree(Path(name) / manifest.folder, manifest)
                connection = [
                    "--vendor",
                    vendor.url,
                    "--api-key-file",
                    str(key),
                    "--cache",
                    f"{name}/cache.db",
                ]
                print(_row(manifest, folder, connection), flush=True)
                shutil.rmtree(folder)


def _row(manifest: Manifest, folder: Path, connection: Sequence[str]) -> str:
    what = ["--data", str(folder), "--recipe", _recipe(manifest), *connection, "--json"]
    extremes = (pick(manifest.images, key=manifest.images.__getitem__) for pick in (max, min))
    fewest, most = (_asked("plan", "--target-domain", each, *what)["purchase"]["to_buy"] for each in extremes)
    table = ["compare", "--methods", "vl2v-adip", "--dry-run", "--out", str(folder.parent / "table"), *what]
    once, thrice = (_asked(*table, "--seeds", seeds) for seeds in ("1", "3"))
    cells = [
        manifest.name,
        f"{sum(manifest.images.values()):,}",
        f"{fewest:,} to {most:,}",
        f"{once['to_buy']:,}",
        f"{thrice['to_buy']:,}",
        f"{thrice['cost_micros'] / 1e6:.2f}",
        f"{_asked_at_every_step(manifest):,}",
    ]
    return f"| {' | '.join(cells)} |"


def _recipe(manifest: Manifest) -> str:
    return "paper-domainnet" if manifest.name == "DomainNet" else "paper"


def _asked_at_every_step(manifest: Manifest) -> int:
    """Queries of one seed, all targets, where each image is asked about anew whenever it is drawn."""
    sources, steps = len(manifest.images) - 1, STEPS.get(manifest.name, USUAL_STEPS)
    return len(manifest.images) * sources * IMAGES_A_DOMAIN * steps * STAGES


def _tree(root: Path, manifest: Manifest) -> Path:
    """A folder with the data set's domains, classes and counts; every image is another, of 8 x 8 pixels."""
    names = manifest.class_names or [f"class_{number:03}" for number in range(manifest.classes)]
    rng = np.random.default_rng(0)
    for domain, count in manifest.images.items():
        for name in names:
            (root / domain / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            path = root / domain / names[number % len(names)] / f"{number}.png"
            Image.fromarray(pixels).save(path, compress_level=0)
    return root


def _asked(*arguments: str) -> Any:  # noqa: ANN401 (whatever the JSON is)
    """What a command of `client` prints as JSON."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        app(list(arguments), standalone_mode=False)
    return json.loads(printed.getvalue())


if __name__ == "__main__":
    main()
