"""Tokens are open_clip's own, and what they cost grows little faster than a text."""

import pickle
import random
import time
from functools import cache

import numpy as np
import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from tests.support.figures import holds
from vendor_service.encoder.tokenizing import (
    ClipTokenizer,
    OpenClipTokenizer,
    TextTask,
    Tokenizer,
    Tokens,
    load_tokenizer,
)

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ab",
    "a",
    "etaoinshr ",
    "猫の写真éàß",
    "0123 'sdreLL",
    "🐈👍 .,!?",
)
TEXTS = (
    "a photo of a cat",
    "A  Photo\tof a CAT.",
    "naïve café, 2&amp;amp;3 ½",
    "<start_of_text> it's we'll <END_OF_TEXT>",
    "Ã©â€™ mojibake",
    "x1 " * 300,
)

WIDE = "\uff06\uff41\uff4d\uff50\uff1b"  # &amp;
ER = "\u0420"  # with a space after it, ftfy takes it for itself in a wrong encoding
# What ftfy does something about: each may make another one of its neighbours.
PIECES = (
    *("&", "amp;", "AMP;", "#38;", "#x26;", "semi;", "num;", "lt;", "<", WIDE, "&#1;"),
    *("Ã", "©", "Ã©", "â€™", "Ãƒ", "Â ", ER, " ", "?", "\ufffd", "\x85", "Œ", "é", "猫", "a", "\u0431"),
    *("ﬃ", "\u0301", "\u0323", "\ud83d", "\udca9", "\x1b[", "1m", "\r", "\n", "“"),
)
PLAIN = SimpleTokenizer()


@cache
def vendors() -> Tokenizer:
    return load_tokenizer("ViT-B-32")


def texts() -> list[str]:
    draw = random.Random(0)
    lengths = (1, 2, 5, 20, 60, 200)
    return [
        *TEXTS,
        *(
            "".join(draw.choices(alphabet, k=draw.choice(lengths)))
            for alphabet in ALPHABETS
            for _ in range(40)
        ),
    ]


@pytest.mark.parametrize("context_length", [16, 77])
def test_tokens_are_open_clips_also_after_pickling(context_length: int) -> None:
    theirs = SimpleTokenizer(context_length=context_length)
    ours = ClipTokenizer.of(SimpleTokenizer(context_length=context_length))
    again = pickle.loads(pickle.dumps(ours))
    assert again.context_length == context_length
    for text in texts():
        expected = theirs([text])[0].numpy()
        assert np.array_equal(again(text), expected), text


def test_words_are_parted_as_by_open_clip() -> None:
    theirs = SimpleTokenizer()
    ours = ClipTokenizer.of(SimpleTokenizer())
    assert ours is not None
    draw = random.Random(1)
    for alphabet in ("abcdefghijklmnopqrstuvwxyz", "ab", "aeiouth", "etaoinshrdlu"):
        for _ in range(60):
            word = "".join(draw.choices(alphabet, k=draw.choice((1, 2, 3, 9, 40, 300))))
            assert ours._merges(word) == theirs.bpe(word), word


@pytest.mark.parametrize("word", ["a" * 10_000, "abcdefghij" * 1000, "🐈" * 10_000, "猫の写真" * 2500])
def test_a_word_of_ten_thousand_letters_takes_a_fraction_of_a_second(word: str) -> None:
    tokenizer = vendors()
    began = time.process_time()
    tokens = tokenizer(word)
    assert holds(time.process_time() - began, 0.5, "s")
    assert tokens.shape == (77,)
    assert np.count_nonzero(tokens) == 77


def done(tokenizer: Tokenizer, text: str) -> Tokens:
    """The tokens of a text that came from a stranger."""
    row = np.zeros(tokenizer.context_length, dtype=np.int64)
    content = text.encode("utf-8", "surrogatepass")
    TextTask(tokenizer).do(content, row.data.cast("B"), lambda _: None, encoded=False, free=False)
    return row


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
def test_what_ftfy_mends_is_mended_as_by_open_clip(text: str) -> None:
    assert np.array_equal(done(vendors(), text), PLAIN([text])[0].numpy())


@pytest.mark.parametrize(
    "text",
    [
        *(
            "é" * 10_000,
            "Ã©" * 5000,
            "â€™猫" * 2500,
            "Ã©猫\n" * 2500,
            "\r\n" * 5000,
            "ﬃ" * 10_000,
            "“" * 10_000,
        ),
        *("e" + "\u0301" * 5000 + "\u0323" * 4999, "\udca9" * 10_000, "\x1b[" * 5000, "\x85" * 10_000),
        *("&lt;" * 2500, "&NotEqualTilde;" * 666, WIDE[1] * 10_000),
    ],
)
def test_ten_thousand_characters_that_ftfy_mends_take_a_fraction_of_a_second(text: str) -> None:
    tokenizer = vendors()
    began = time.process_time()
    tokens = done(tokenizer, text)
    assert holds(time.process_time() - began, 0.5, "s")
    assert np.array_equal(tokens, PLAIN([text])[0].numpy())


def test_other_tokenizers_stay_open_clips_own() -> None:
    plain = SimpleTokenizer(clean="canonicalize")
    assert ClipTokenizer.of(plain) is None
    wrapped = OpenClipTokenizer(plain)
    expected = SimpleTokenizer(clean="canonicalize")
    for text in TEXTS:
        assert np.array_equal(wrapped(text), expected([text])[0].numpy())
    began = time.process_time()
    wrapped("a" * 10_000)
    assert holds(time.process_time() - began, 0.5, "s")
    assert ClipTokenizer.of(HFTokenizer.__new__(HFTokenizer)) is None


def test_a_tokenizer_is_taken_along_and_not_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that tokenize have no token: a hub that asks for one refuses even what is cached."""
    wrapped = OpenClipTokenizer(SimpleTokenizer(clean="canonicalize"))
    pickled = pickle.dumps(wrapped)
    monkeypatch.delattr(open_clip, "get_tokenizer")
    again = pickle.loads(pickled)
    assert again.context_length == 77
    for text in TEXTS:
        assert np.array_equal(again(text), wrapped(text))


def test_the_bundled_models_tokenizer_needs_no_open_clip() -> None:
    assert isinstance(load_tokenizer("ViT-B-32"), ClipTokenizer)
    assert open_clip.get_tokenizer("ViT-B-32").context_length == 77
