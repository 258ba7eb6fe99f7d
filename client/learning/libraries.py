"""timm, imported without PyTorch's compiler, which only training needs."""

from shared.compiler import compiler_later

with compiler_later():
    import timm

__all__ = ["timm"]
