"""Which files are variants of one drawing, told by their names: asked for, or known of the bundled icons."""

from pathlib import Path

# What tells one variant of a drawing from another in icon names ("bell", "bell-filled", "bell-small").
_VARIANTS = frozenset({"filled", "fill", "solid", "outline", "line", "bold", "sharp", "small", "flat", "alt"})
# The bundled icons come with a list of themselves, which begins so.
_ATTRIBUTION = "ATTRIBUTION.txt"
_BUNDLED = "Drawn from @iconify/json@"


def drawing_of(stem: str) -> str | None:
    """The name that variants of one drawing share (`<set>__<name>`); `None` for any other name.

    "fluent-emoji-flat__pouting-cat" and "fluent-emoji__pouting-cat" are one drawing, and so are
    "pixel__bell" and "pixel__bell-solid". A number of one or two digits tells variants apart; a longer one
    tells photographs apart ("train__dog-0001").
    """
    family, separator, name = stem.partition("__")
    if not separator:
        return None
    words = [
        word
        for word in name.lower().split("-")
        if word not in _VARIANTS and not (word.isdigit() and len(word) <= 2)
    ]
    return f"{family.removesuffix('-flat')}__{'-'.join(sorted(words)) or name}"


def bundled_icons(root: Path) -> frozenset[str]:
    """The names in the list that came with the bundled icons, relative to its folder; none without it."""
    try:
        text = (root / _ATTRIBUTION).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return frozenset()
    if not text.startswith(_BUNDLED):
        return frozenset()
    return frozenset(line.strip() for line in text.splitlines() if line.startswith("  "))
