"""The answers of the bundled teacher to all that the benchmark asks, in one file (docs/benchmark.md).

    python -m benchmarks.answers answers.safetensors

The file in this folder was made so, once: on another processor the last digits differ.
"""

import argparse
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.records import ROOT
from benchmarks.runs import icons, unpacked
from client.api.embedding import embed
from client.cache.archive import export_embeddings
from client.cache.cache import EmbeddingCache
from client.data.bundled_set import UNLABELLED
from client.data.listing import list_folder
from client.learning.methods import METHODS
from client.options.vendor import EmbedOptions

ANSWERS = ROOT / "benchmarks" / "answers.safetensors"
_TEACHER = "open_clip:icon-clip"


def texts_asked() -> list[str]:
    """Every sentence that a method asks about, whichever style is held out."""
    folder = list_folder(icons())
    prompts = dict.fromkeys(method.prompts for method in METHODS.values() if "texts" in method.asks)
    asked = (each.sentences(folder.classes, folder.domains).all for each in prompts)
    return list(dict.fromkeys(text for some in asked for text in some))


def make(out: Path) -> int:
    """Ask about every image and sentence, and write the answers in float16; returns how many."""
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "cache.db"
        with EmbeddingCache(file, half=True):
            pass
        images = (icons(), unpacked(UNLABELLED))
        embed(EmbedOptions(texts=tuple(texts_asked()), images=images, teacher=_TEACHER, cache=file))
        with EmbeddingCache(file) as cache:
            return export_embeddings(cache, out)


def main() -> None:
    """Make the file, and print its digest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the file, which ends in .safetensors")
    out = parser.parse_args().out
    count = make(out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    print(f"{count:,} answers, {out.stat().st_size:,} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    main()
