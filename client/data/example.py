"""The images that come with the client: icons of 54 classes in five drawing styles, which are the domains."""

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from client.errors import UsageError, unwritable

BUNDLED = Path(__file__).with_name("bundled")
ICONS = BUNDLED / "icons.zip"


def unpack_example(folder: Path) -> int:
    """Write the bundled icons into a new folder, as FOLDER/<domain>/<class>/<image>, whole or not at all.

    ATTRIBUTION.txt in it says whose drawings they are.

    Args:
        folder: may exist if it is empty.

    Returns:
        The number of images.

    Raises:
        UsageError: the folder has something in it.
        ClientError: it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists already. Name a new folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            with zipfile.ZipFile(ICONS) as archive:
                archive.extractall(scratch)
                images = sum(name.endswith(".png") for name in archive.namelist())
            if folder.exists():
                folder.rmdir()
            Path(scratch, "icons").rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    return images
