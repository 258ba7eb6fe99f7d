"""Whether other class texts than "a photo of a {class}" are worth their queries: zero-shot accuracies.

    python -m benchmarks.prompts

On the bundled icons and with the bundled teacher, each style in turn being the unseen one (seconds; offline).
A class of several prompts is the normalised mean of their unit embeddings.
"""

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.accuracy import icons
from client.data.domains import list_folder
from client.data.examples import Example
from client.data.pixels import PixelStore
from client.learning.backbones import BUNDLED_TEACHER
from client.learning.backbones.open_clip_backbones import class_texts
from client.learning.student import bundled_teacher

PHOTO = "a photo of a {}"
SETS = {
    "the paper's prompt": [PHOTO],
    "the class's name alone": ["{}"],
    "three prompts": [PHOTO, "an icon of a {}", "{}"],
}


def main() -> None:
    """Print a row a set of prompts, a column an unseen domain."""
    folder = list_folder(icons())
    examples, _ = folder.read(folder.domains)
    labels = torch.tensor([example.label for example in examples])
    images = embeddings(examples)
    names = [name.replace("_", " ") for name in folder.classes]
    rows = {title: dict.fromkeys(folder.domains, prompts) for title, prompts in SETS.items()}
    rows["a prompt a source domain"] = {
        unseen: [f"a {domain} of a {{}}" for domain in folder.domains if domain != unseen]
        for unseen in folder.domains
    }
    print("| prompts | a class | " + " | ".join(folder.domains) + " |")
    print("|---" * (2 + len(folder.domains)) + "|")
    for title, prompts_of in rows.items():
        cells = []
        for unseen, prompts in prompts_of.items():
            there = torch.tensor([example.domain == unseen for example in examples])
            right = (images[there] @ class_means(prompts, names).T).argmax(dim=1) == labels[there]
            cells.append(f"{100 * right.float().mean():.1f}")
        print(f"| {title} | {len(prompts)} | " + " | ".join(cells) + " |")


def embeddings(examples: list[Example]) -> Tensor:
    """The teacher's unit embeddings of the files as they are, shape (n, d)."""
    teacher = bundled_teacher()
    store, side = PixelStore(examples, None), teacher.preprocessing.image_size
    parts = [
        teacher.embed(
            torch.from_numpy(store.load(range(start, min(start + 128, len(examples))), side).pixels).permute(
                0, 3, 1, 2
            )
        )
        for start in range(0, len(examples), 128)
    ]
    return torch.cat(parts)


def class_means(prompts: list[str], names: list[str]) -> Tensor:
    """A unit vector a class, shape (classes, d)."""
    texts = [class_texts(BUNDLED_TEACHER, [prompt.format(name) for name in names]) for prompt in prompts]
    return functional.normalize(torch.stack(texts).mean(dim=0), dim=1)


if __name__ == "__main__":
    main()
