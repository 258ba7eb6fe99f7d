"""Tokens are open_clip's own, and what they cost grows little faster than a text."""

import pickle
import random
import time

import numpy as np
import open_clip
import pytest
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from vendor_service.encoder.tokenizing import ClipTokenizer, OpenClipTokenizer, load_tokenizer

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
    tokenizer = load_tokenizer("ViT-B-32")
    began = time.process_time()
    tokens = tokenizer(word)
    assert time.process_time() - began < 0.5
    assert tokens.shape == (77,)
    assert np.count_nonzero(tokens) == 77


def test_other_tokenizers_stay_open_clips_own() -> None:
    plain = SimpleTokenizer(clean="canonicalize")
    assert ClipTokenizer.of(plain) is None
    wrapped = OpenClipTokenizer("ViT-B-32", plain)
    expected = SimpleTokenizer(clean="canonicalize")
    for text in TEXTS:
        assert np.array_equal(wrapped(text), expected([text])[0].numpy())
    began = time.process_time()
    wrapped("a" * 10_000)
    assert time.process_time() - began < 0.5
    assert pickle.loads(pickle.dumps(wrapped)).context_length == 77
    assert ClipTokenizer.of(HFTokenizer.__new__(HFTokenizer)) is None


def test_the_bundled_models_tokenizer_needs_no_open_clip() -> None:
    assert isinstance(load_tokenizer("ViT-B-32"), ClipTokenizer)
    assert open_clip.get_tokenizer("ViT-B-32").context_length == 77
