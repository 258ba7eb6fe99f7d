"""The sentences that a method asks its teacher about classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from client.data.names import readable
from client.data.wording import CLASS_TEMPLATE, PLACE, THEIR_OWN_NAMES, Sentences, Wording


@dataclass(frozen=True)
class ClassPrompts:
    """The sentences about a class that a method asks about.

    Attributes:
        templates: about the class, whose name takes the place of `{}`. Together they are its class text.
            Those that somebody gives stand in their place (`Wording`).
        styled: about the class in one style, whose name takes the place of the first `{}`; `None` where the
            method asks no such sentence.
    """

    templates: tuple[str, ...] = (CLASS_TEMPLATE,)
    styled: str | None = None

    def sentences(
        self, classes: Sequence[str], styles: Sequence[str], wording: Wording = THEIR_OWN_NAMES
    ) -> Sentences:
        """The sentences about each class; underscores become spaces."""
        styled = () if self.styled is None else tuple(self._in_style(readable(style)) for style in styles)
        return Sentences(
            wording.sentences(classes, self.templates),
            tuple(tuple(each.replace(PLACE, wording.word(name)) for each in styled) for name in classes),
        )

    def _in_style(self, style: str) -> str:
        assert self.styled is not None
        return self.styled.replace(PLACE, style, 1)


ONE_PROMPT = ClassPrompts()
