"""How a teacher is asked about classes: the words for each, the sentences, and the text that they make."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from client.data.names import readable
from client.errors import DataError

# The paper's only prompt (section 4).
CLASS_TEMPLATE = "a photo of a {}"
# What the name of a class takes the place of. `str.format` would run what else stands in braces.
PLACE = "{}"


def class_prompts(classes: Iterable[str]) -> list[str]:
    """ "a photo of a {class}" of each class, with underscores as spaces."""
    return [CLASS_TEMPLATE.replace(PLACE, readable(name)) for name in classes]


@dataclass(frozen=True)
class Sentences:
    """The sentences about each class: those whose mean is its text, and those about it in each style."""

    plain: tuple[tuple[str, ...], ...]
    styled: tuple[tuple[str, ...], ...]

    @property
    def all(self) -> list[str]:
        """Every sentence, class by class: the plain ones, then one a style."""
        return [
            sentence
            for plain, styled in zip(self.plain, self.styled, strict=True)
            for sentence in (*plain, *styled)
        ]

    def class_texts(self, embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The class texts, and the embeddings of each class in each style.

        A class text is the mean of the embeddings of its plain sentences, brought back to length 1; of one
        sentence, its embedding as it was sold.

        Args:
            embeddings: unit embeddings of `all`, shape (sentences, d).

        Returns:
            unit class texts, shape (classes, d), and unit embeddings of shape (classes, styles, d).
        """
        width = embeddings.shape[1]
        sizes = [len(plain) + len(styled) for plain, styled in zip(self.plain, self.styled, strict=True)]
        parts = [embeddings[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
        texts = [_mean(part[: len(plain)]) for part, plain in zip(parts, self.plain, strict=True)]
        styled = [part[len(plain) :] for part, plain in zip(parts, self.plain, strict=True)]
        if not parts:
            return embeddings[:0], embeddings.reshape(0, 0, width)
        return np.stack(texts), np.stack(styled)


@dataclass(frozen=True)
class Wording:
    """How somebody wants classes to be asked about; without anything, as the method does.

    Attributes:
        templates: sentences about a class, whose name takes the place of `{}`; none for the method's.
        words: the names of some classes in sentences, where those of their folders are codes, say.
        prompts: the sentences about some classes, in place of the templates; a `{}` stands for the name.
    """

    templates: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def word(self, name: str) -> str:
        """The name of a class in a sentence."""
        return self.words.get(name) or readable(name)

    def sentences(
        self, classes: Sequence[str], templates: Sequence[str] = (CLASS_TEMPLATE,)
    ) -> tuple[tuple[str, ...], ...]:
        """The plain sentences about each class; `templates` are the method's, which count without others."""
        return tuple(
            tuple(
                dict.fromkeys(
                    each.replace(PLACE, self.word(name))
                    for each in self.prompts.get(name) or self.templates or templates
                )
            )
            for name in classes
        )

    def require_distinct(self, classes: Sequence[str]) -> None:
        """Check that no two classes are asked about alike.

        Raises:
            DataError: two are.
        """
        asked: dict[tuple[str, ...], str] = {}
        for name, sentences in zip(classes, self.sentences(classes), strict=True):
            if (other := asked.setdefault(sentences, name)) != name:
                raise DataError(
                    f"The classes {other!r} and {name!r} are both asked for as {sentences[0]!r}: make them "
                    "one, give one of them another name, or say with --names or --prompts how they differ."
                )


THEIR_OWN_NAMES = Wording()


def _mean(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """The direction of the mean of unit vectors, shape (n, d)."""
    mean: NDArray[np.float32] = embeddings.mean(axis=0)
    if len(embeddings) > 1:
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
    return mean
