"""The images that come with the client: labelled icons in five drawing styles, and a pool without labels."""

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from client.errors import UsageError, unwritable

_BUNDLED = Path(__file__).with_name("bundled")
# <domain>/<class>/<image> below icons/, and <style>/<image> below unlabelled/.
ICONS = _BUNDLED / "icons.zip"
UNLABELLED = _BUNDLED / "unlabelled.zip"


def pool_beside(folder: Path) -> Path:
    """Where the pool without labels goes, for labelled icons in `folder`: "icons-unlabelled" for "icons"."""
    return folder.with_name(f"{folder.name}-unlabelled")


def unpack_example(folder: Path) -> None:
    """Write the bundled images into two new folders, `folder` and `pool_beside(folder)`.

    ATTRIBUTION.txt in each says whose drawings they are.

    Args:
        folder: may exist if it is empty, and so may the other.

    Raises:
        UsageError: it has no name of its own (`.`), or one of them has something in it; nothing is written
            then.
        ClientError: they cannot be written.
    """
    if folder.name in ("", ".."):
        raise UsageError(f"{folder} is not a new folder. Name one, such as {folder / 'icons'}.")
    targets = {ICONS: folder, UNLABELLED: pool_beside(folder)}
    try:
        for target in targets.values():
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise UsageError(f"{target} exists already. Name a new folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        for archive, target in targets.items():
            _unpack(archive, target)
    except OSError as error:
        raise unwritable(folder, error) from error


def _unpack(archive: Path, target: Path) -> None:
    """Write an archive's one folder under another name, whole or not at all."""
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        with zipfile.ZipFile(archive) as files:
            files.extractall(scratch)
        if target.exists():
            target.rmdir()
        Path(scratch, archive.stem).rename(target)
