"""The sentences that a method asks its teacher about classes, and the class texts that they make."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from client.data.names import CLASS_TEMPLATE, readable


@dataclass(frozen=True)
class ClassPrompts:
    """The sentences about a class that a method asks about.

    Attributes:
        templates: about the class, whose name takes the place of `{}`. Together they are its class text.
        styled: about the class in one style, whose name takes the place of the first `{}`; `None` where the
            method asks no such sentence.
    """

    templates: tuple[str, ...] = (CLASS_TEMPLATE,)
    styled: str | None = None

    def sentences(self, classes: Sequence[str], styles: Sequence[str]) -> list[str]:
        """The sentences, class by class: one a template, then one a style; underscores become spaces."""
        return [sentence for name in classes for sentence in self._about(readable(name), styles)]

    def _about(self, name: str, styles: Sequence[str]) -> list[str]:
        plain = [template.format(name) for template in self.templates]
        if self.styled is None:
            return plain
        return plain + [self.styled.format(readable(style), name) for style in styles]

    def class_texts(self, embeddings: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The class texts, and the embeddings of each class in each style.

        A class text is the mean of the embeddings of its templates' sentences, brought back to length 1.

        Args:
            embeddings: unit embeddings of `sentences`, shape (classes x (templates + styles), d).
            classes: how many there are.

        Returns:
            unit class texts, shape (classes, d), and unit embeddings of shape (classes, styles, d).
        """
        by_class = embeddings.reshape(classes, -1, embeddings.shape[1])
        plain, styled = by_class[:, : len(self.templates)], by_class[:, len(self.templates) :]
        if len(self.templates) == 1:
            return plain[:, 0], styled
        return functional.normalize(plain.mean(dim=1), dim=1), styled


ONE_PROMPT = ClassPrompts()
