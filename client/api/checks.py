"""What is refused before anything is written or bought."""

from pathlib import Path

from client.errors import UsageError
from client.paths import is_file, resolved


def require_outside(out: Path, data: Path) -> None:
    """Refuse to write into the image folder.

    Raises:
        UsageError: `out` lies there.
    """
    if resolved(out).is_relative_to(resolved(data)):
        raise UsageError(
            f"{out} lies inside --data {data}, where folders are domains: the next command would take it for "
            "one. Choose an --out elsewhere."
        )


def require_file(option: str, file: Path | None) -> None:
    """Refuse a file that is not there.

    Raises:
        UsageError: it is given, and is no file.
    """
    if file is not None and not is_file(file):
        raise UsageError(f"{option} {file} is not a file.")


def chosen_device(name: str) -> str:
    """The device of this name; for "auto" a GPU if there is one.

    Processes that a launcher has started each take a GPU of their own, whichever is named.

    Raises:
        UsageError: there is none of this name here.
    """
    import torch  # takes seconds to import

    from client.learning.processes import is_distributed

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if is_distributed() and torch.device(name).type == "cuda" and torch.cuda.is_available():
            return name  # a tensor on the one that is named would take memory there for every process
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"--device {name!r} cannot be used on this machine; auto takes what there is."
        ) from error
    return name
