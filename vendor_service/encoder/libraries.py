"""open_clip, imported without PyTorch's compiler."""

from shared.compiler import compiler_later

with compiler_later():
    import open_clip

__all__ = ["open_clip"]
