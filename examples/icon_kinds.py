"""What an icon shows in everyday words: "motor boat" is a ship, "waning gibbous moon face" a moon."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KINDS = Path(__file__).with_name("icon_kinds.toml")
_LONGEST = 4  # words of a name
# In emoji's names that are written as one word: what follows the thing, and the shortest thing looked for.
_ENDINGS = ("face", "side", "oclock", "head")
_SHORTEST = 4


@dataclass(frozen=True)
class Kinds:
    """Everyday words for things.

    Attributes:
        by_name: the everyday word for each name of a thing.
        beside: words that say how a thing is shown.
    """

    by_name: Mapping[str, str]
    beside: frozenset[str]

    @classmethod
    def read(cls, path: Path = KINDS) -> "Kinds":
        """The words of icon_kinds.toml."""
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        by_name = {name: kind for kind, names in document["kinds"].items() for name in (kind, *names)}
        return cls(by_name, frozenset(document["beside"].split()))

    def of(self, caption: str, style: str) -> str | None:
        """The everyday word for what an icon of this name and style shows; `None` where it is not sure.

        English names a thing last ("cargo ship"), and so do emoji's names, whatever goes before. Other icons'
        names often name it first ("ship cargo"), and their other words may be further things that are drawn.
        """
        words = caption.split(" with ")[0].split()
        if style == "emoji" and len(words) == 1:
            return self._of_one(words[0])
        while len(words) > 1 and words[-1] in self.beside and " ".join(words[-2:]) not in self.by_name:
            words.pop()
        for length in range(min(_LONGEST, len(words)), 0, -1):
            kind = self.by_name.get(" ".join(words[-length:]))
            if kind and (style == "emoji" or self.beside.issuperset(words[:-length])):
                return kind
        return None

    def _of_one(self, word: str) -> str | None:
        """Of a name whose words are written as one ("blacktelephone")."""
        if word in self.by_name:
            return self.by_name[word]
        for ending in _ENDINGS:
            word = word.removesuffix(ending)
        starts = range(len(word) - _SHORTEST + 1)
        return next((self.by_name[word[start:]] for start in starts if word[start:] in self.by_name), None)
