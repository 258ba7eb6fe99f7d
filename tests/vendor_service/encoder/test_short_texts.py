"""Texts are computed without their padding where that changes nothing, and whole everywhere else."""

from typing import Any

import open_clip
import pytest
import torch

from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.graph import difference, is_graph
from vendor_service.encoder.short_texts import ShortTexts, short_texts
from vendor_service.encoder.sources import find_model

TOLERANCE = 1e-5
CONTEXT, START, END = 40, 49406, 49407
_VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
_TEXT = {"context_length": CONTEXT, "width": 16, "heads": 2, "layers": 2}


def _model(*, custom: bool, **text: Any) -> Any:
    """A small open_clip model of random weights, its text tower a part of it (`custom`) or not."""
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(embed_dim=24, vision_cfg=_VISION, text_cfg=_TEXT | text)
        for weights in model.parameters():  # larger than those that open_clip begins with: places matter
            torch.nn.init.normal_(weights, std=0.3)
    return model.eval().requires_grad_(False)


def _tokens(*lengths: int) -> torch.Tensor:
    """Texts of so many words, each between a token that begins it and one that ends it."""
    drawn = torch.Generator().manual_seed(0)
    rows = torch.zeros(len(lengths), CONTEXT, dtype=torch.int64)
    for row, length in zip(rows, lengths, strict=True):
        row[0], row[length + 1] = START, END
        row[1 : length + 1] = torch.randint(1, START, (length,), generator=drawn)
    return rows


@torch.inference_mode()
@pytest.mark.parametrize("is_faster", [False, True], ids=["as it is", "a graph"])
@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("pool", [{}, {"pool_type": "eos", "eos_id": END}])
@pytest.mark.parametrize("lengths", [(1,), (6,), (7,), (3, 20, 1), (CONTEXT - 2, 2)])
def test_a_causal_model_answers_as_it_does_with_padding(
    custom: bool,
    pool: dict[str, Any],
    lengths: tuple[int, ...],
    is_faster: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = lambda forward, _: 1.0 if is_graph(forward) == is_faster else 2.0  # noqa: E731
    monkeypatch.setattr("vendor_service.encoder.graph._seconds", seconds)
    model = _model(custom=custom, **pool)
    short = short_texts(model, _tokens(2, 9), TOLERANCE)
    assert isinstance(short, ShortTexts)
    assert is_graph(short._forward) == is_faster
    tokens = _tokens(*lengths)
    columns = short.cut(tokens)
    assert columns.shape[1] == max(lengths) + 2
    assert difference(short(columns), model.encode_text(tokens)) < TOLERANCE


@torch.inference_mode()
@pytest.mark.parametrize("pool", [{}, {"pool_type": "eos", "eos_id": END}])
def test_what_comes_after_an_end_in_a_text_counts_no_more_than_it_did(pool: dict[str, Any]) -> None:
    model = _model(custom=True, **pool)
    short = ShortTexts(model)
    tokens = _tokens(30)
    tokens[0, 4] = END
    assert short.cut(tokens).shape[1] == 5
    assert difference(short(short.cut(tokens)), model.encode_text(tokens)) < TOLERANCE


@pytest.mark.parametrize(
    "text",
    [
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"pool_type": "first"},
        {"embed_cls": True},
    ],
)
def test_a_model_whose_texts_see_their_padding_keeps_it(text: dict[str, Any]) -> None:
    model = _model(custom=True, **text)
    assert short_texts(model, _tokens(2, 9), TOLERANCE) == model.encode_text


def test_so_does_one_that_is_found_to_answer_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(custom=False)
    encode = type(model).encode_text
    monkeypatch.setattr(type(model), "encode_text", lambda self, text: encode(self, text) + text.shape[1])
    assert short_texts(model, _tokens(2, 9), TOLERANCE) == model.encode_text


def test_the_weights_are_shared() -> None:
    model = _model(custom=True)
    short = ShortTexts(model)
    before = short(short.cut(_tokens(3)))
    assert torch.equal(before, short(short.cut(_tokens(3))))
    model.text.token_embedding.weight += 1
    assert not torch.equal(before, short(short.cut(_tokens(3))))


def test_a_large_model_is_sold_so_and_a_graph_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["x", "a photo of a cat", "a red square on a white wall " * 9]
    small = ClipModel(find_model("icon-clip", None), [torch.device("cpu")])
    monkeypatch.setattr("vendor_service.encoder.graph._LARGE_SECONDS", -1.0)
    large = ClipModel(find_model("icon-clip", None), [torch.device("cpu")])
    kinds = [isinstance(each.replicas[0].passes["text"], ShortTexts) for each in (small, large)]
    assert kinds == [False, True]
    staged = [large.replicas[0].stage("text", [large._tokenized(text)]).batch for text in texts]
    assert [each.shape[1] for each in staged] == [3, 7, 16]
    assert abs(large.encode_texts(texts) - small.encode_texts(texts)).max() < TOLERANCE
