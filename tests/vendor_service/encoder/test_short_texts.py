"""Texts are computed without their padding where that changes nothing, and whole everywhere else."""

import gc
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import open_clip
import pytest
import torch

from tests.support.tiny_clip import write_tiny_clip
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.graph import Forward, as_graph, difference, is_graph
from vendor_service.encoder.short_texts import ShortTexts, places_first, short_texts
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
def test_a_causal_model_answers_as_it_does_with_padding(
    custom: bool, pool: dict[str, Any], is_faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = lambda forward, _: 1.0 if is_graph(forward) == is_faster else 2.0  # noqa: E731
    monkeypatch.setattr("vendor_service.encoder.graph._seconds", seconds)
    model = _model(custom=custom, **pool)
    short = short_texts(model, _tokens(2, 9), TOLERANCE, lambda: model.encode_text)
    assert isinstance(short, ShortTexts)
    assert (short._graph is not None) == is_faster
    for lengths in [(1,), (6,), (7,), (3, 20, 1), (CONTEXT - 2, 2)]:
        tokens = _tokens(*lengths)
        columns = short.cut(tokens)
        assert columns.shape[1] == max(lengths) + 2
        assert difference(short(columns), model.encode_text(tokens)) < TOLERANCE


@pytest.mark.usefixtures("without_graphs")
def test_a_model_that_answers_texts_goes_with_the_last_who_knows_it() -> None:
    model = _model(custom=False)
    short, kept = short_texts(model, _tokens(2, 9), TOLERANCE, Mock()), weakref.ref(model)
    assert isinstance(short, ShortTexts)
    gc.disable()  # a server's collector leaves alone what it began with
    try:
        del model, short
        assert kept() is None
    finally:
        gc.enable()


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
    assert short_texts(model, _tokens(2, 9), TOLERANCE, lambda: model.encode_text) == model.encode_text


def test_so_does_one_that_is_found_to_answer_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(custom=False)
    encode = type(model).encode_text
    monkeypatch.setattr(type(model), "encode_text", lambda self, text: encode(self, text) + text.shape[1])
    assert short_texts(model, _tokens(2, 9), TOLERANCE, lambda: model.encode_text) == model.encode_text


@torch.inference_mode()
@pytest.mark.parametrize(("most", "is_short"), [(CONTEXT // 2, True), (CONTEXT // 2 + 1, False)])
def test_a_graph_with_padding_stays_where_more_than_half_of_the_tokens_matter(
    most: int, is_short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.encoder.graph._seconds", lambda *_: 1.0)
    model, tokens = _model(custom=False), _tokens(2, most - 2)
    graph = as_graph(model, "encode_text", [tokens], 1.0)
    assert is_graph(graph)
    assert isinstance(short_texts(model, tokens, TOLERANCE, lambda: graph), ShortTexts) == is_short
    assert isinstance(short_texts(model, tokens, TOLERANCE, lambda: model.encode_text), ShortTexts)


def test_no_graph_with_padding_is_made_where_few_tokens_matter() -> None:
    def made() -> Forward:
        pytest.fail("a graph with padding was made")

    assert isinstance(short_texts(_model(custom=False), _tokens(2, 9), TOLERANCE, made), ShortTexts)


def test_the_weights_are_shared() -> None:
    model = _model(custom=True)
    short = ShortTexts(model)
    before = short(short.cut(_tokens(3)))
    assert torch.equal(before, short(short.cut(_tokens(3))))
    model.text.token_embedding.weight += 1
    assert not torch.equal(before, short(short.cut(_tokens(3))))


@torch.inference_mode()
@pytest.mark.parametrize("custom", [False, True])
def test_places_come_first_and_no_layer_multiplies_place_by_place(custom: bool) -> None:
    tokens = _tokens(3, 9, 1)
    model = _model(custom=custom)
    before = model.encode_text(tokens)
    assert CONTEXT in _multiplied_apart(model, tokens)
    places_first(model)
    assert difference(before, model.encode_text(tokens)) < TOLERANCE
    assert CONTEXT not in _multiplied_apart(model, tokens)


@pytest.mark.parametrize("text", [{"ls_init_value": 0.1}, {"no_causal_mask": True}])
def test_towers_of_other_kinds_answer_as_they_did_with_places_first(text: dict[str, Any]) -> None:
    tokens = _tokens(3, 9, 1)
    model = _model(custom=True, **text)
    before = model.encode_text(tokens)
    places_first(model)
    assert difference(before, model.encode_text(tokens)) < TOLERANCE


def test_a_tower_with_attention_of_another_make_is_left_alone() -> None:
    model = _model(custom=True)
    model.text.transformer.resblocks[1].attn = torch.nn.Identity()
    places_first(model)
    assert model.text.transformer.batch_first
    assert model.text.transformer.resblocks[0].attn.batch_first


def _multiplied_apart(model: Any, tokens: torch.Tensor) -> set[int]:
    """How many matrices were multiplied apart, in each product of several."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as seen:
        model.encode_text(tokens)
    return {event.input_shapes[0][0] for event in seen.events() if event.name == "aten::bmm"}


def test_a_large_model_is_sold_so_and_a_graph_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_model(write_tiny_clip(tmp_path / "tiny", seed=1), None)
    texts = ["x", "a photo of a cat", "a red square on a white wall " * 9]
    small = ClipModel(source, [torch.device("cpu")])
    monkeypatch.setattr("vendor_service.encoder.graph._LARGE_SECONDS", -1.0)
    large = ClipModel(source, [torch.device("cpu")])
    kinds = [isinstance(each.replicas[0].passes["text"], ShortTexts) for each in (small, large)]
    assert kinds == [False, True]
    assert not large.replicas[0].passes["text"]._tower.transformer.batch_first  # type: ignore[attr-defined]
    staged = [large.replicas[0].stage("text", [large._tokenized(text)]).batch for text in texts]
    assert [each.shape[1] for each in staged] == [3, 7, 16]
    assert abs(large.encode_texts(texts) - small.encode_texts(texts)).max() < TOLERANCE
