"""A model's texts as fast as they can be: without the padding that open_clip fills each of them up with.

Where a text tower is causal, no token sees those behind it, and a text's features are read off at its end
(Radford et al., ICML 2021, section 2.4). So what is behind the end of the longest text of a batch need not be
computed: "a photo of a cat" has 7 tokens of 77.

On processors a tower also runs with the places of its tokens before the texts, see `places_first`.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from vendor_service.encoder.graph import Forward, as_graph, difference, is_graph

# On a GPU, texts are cut to a multiple of this, which suits its kernels.
_GPU_STEP = 8
# The part of the tolerated difference between two answers that this may take. bfloat16 rounds sums of other
# lengths otherwise, by as much as it differs from float32.
_SHARE_OF_TOLERANCE = 0.5

_log = logging.getLogger(__name__)


class ShortTexts:
    """`encode_text` of a model whose text tower is causal; threads may call it at once.

    It answers texts of any length up to the tower's own by its own code, over the same weights.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - open_clip has no types
        self._model = model
        self._tower = _tower(model)
        self._end = _end_token(model)
        self._step = _GPU_STEP if self._tower.positional_embedding.is_cuda else 1
        self._graph: Forward | None = None

    def cut(self, tokens: torch.Tensor) -> torch.Tensor:
        """The columns that matter of tokens of shape (texts, context_length)."""
        ends = tokens.argmax(1) if self._end is None else tokens.eq(self._end).int().argmax(1)
        needed = int(ends.max()) + 1
        return tokens[:, : -(-needed // self._step) * self._step]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Features of shape (texts, dimensions), of tokens as `cut` leaves them."""
        return (self._graph or self.encode_text)(tokens)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same by the model as one of shorter texts: a copy of two objects, which shares the rest."""
        length = tokens.shape[1]
        tower = copy.copy(self._tower)
        places, mask = tower.positional_embedding[:length], tower.attn_mask[:length, :length]
        tower._parameters = {**tower._parameters, "positional_embedding": places}
        tower._buffers = {**tower._buffers, "attn_mask": mask}
        model = tower
        if self._tower is not self._model:
            model = copy.copy(self._model)
            model._modules = {**model._modules, "text": tower}
        return cast(torch.Tensor, model.encode_text(tokens))

    def become_graph(self, examples: Sequence[torch.Tensor], tolerance: float) -> None:
        """Answer by a graph from now on, where that is as good and faster (graph.py)."""
        made = as_graph(self, "encode_text", examples, tolerance)
        # Its own method is not kept: in a circle of references the model would outlive its service, for the
        # garbage collector leaves alone what a server began with.
        self._graph = made if is_graph(made) else None


def places_first(model: Any) -> None:  # noqa: ANN401
    """Have a text tower compute in tensors of shape (places, texts, width), where it can; its answers stay.

    With texts first, `nn.MultiheadAttention` hands PyTorch a transposed view of its input. That cannot be
    folded into one matrix, so PyTorch multiplies place by place, and in bfloat16 first copies the weights
    for each of them: two texts of 77 tokens then take 22 times as long. (Image towers, which have no mask,
    take another way through it.)
    """
    transformer = getattr(_tower(model), "transformer", None)
    layers: list[Any] = [getattr(block, "attn", None) for block in getattr(transformer, "resblocks", ())]
    if not layers or not getattr(transformer, "batch_first", False):
        return
    if all(isinstance(layer, nn.MultiheadAttention) and layer.batch_first for layer in layers):
        for each in (transformer, *layers):
            each.batch_first = False


@torch.inference_mode()
def short_texts(
    model: Any,  # noqa: ANN401
    tokens: torch.Tensor,
    tolerance: float,
    whole: Callable[[], Forward],
) -> Forward:
    """How a model makes features of texts: without padding where that changes nothing, and pays.

    Args:
        model: an open_clip model in evaluation.
        tokens: of some texts, on its device, shape (texts, context_length).
        tolerance: the largest difference of one component between two answers to the same input.
        whole: makes how it makes them with padding. Where that is one graph, as in a small model, and more
            than half of these tokens matter, it stays so.
    """
    if not _is_causal(model):
        return whole()
    short = ShortTexts(model)
    if 2 * short.cut(tokens).shape[1] > tokens.shape[1] and is_graph(graph := whole()):
        return graph
    differs = max(difference(short(short.cut(row)), model.encode_text(row)) for row in torch.split(tokens, 1))
    if differs <= _SHARE_OF_TOLERANCE * tolerance:
        if tokens.device.type == "cpu":
            two, one, all_of_them = (short.cut(rows) for rows in (tokens[:2], tokens[:1], tokens))
            short.become_graph([two, one, tokens[:1], all_of_them], tolerance)
        return short
    _log.info("texts keep their padding: without it, their vectors differ by %.1e", differs)
    return whole()


def _tower(model: Any) -> Any:  # noqa: ANN401
    """The module with the positions of tokens and the mask: a part of the model, or the model itself."""
    return getattr(model, "text", model)


def _end_token(model: Any) -> int | None:  # noqa: ANN401
    """The token that ends a text; `None` where it is the one with the highest number."""
    tower = _tower(model)
    if _pooled_at(tower) == "argmax":
        return None
    return int(tower.eos_id if hasattr(tower, "eos_id") else model.text_eos_id)


def _pooled_at(tower: Any) -> str | None:  # noqa: ANN401
    found: str | None = getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", None)
    return found


def _is_causal(model: Any) -> bool:  # noqa: ANN401
    """Whether a model is one of those whose texts may be cut at their ends."""
    tower = _tower(model)
    mask, places = getattr(tower, "attn_mask", None), getattr(tower, "positional_embedding", None)
    if not isinstance(mask, torch.Tensor) or not isinstance(places, torch.Tensor):
        return False
    sees_more = getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False)
    ahead = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return (
        _pooled_at(tower) in ("argmax", "eos")
        and not sees_more
        and mask.shape == (len(places), len(places))
        and bool(mask[ahead].isneginf().all())
    )
