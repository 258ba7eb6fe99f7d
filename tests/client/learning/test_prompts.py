"""The sentences about a class, and the class text that they make together."""

import numpy as np

from client.data.wording import Wording, class_prompts
from client.learning.methods import METHODS
from client.learning.prompts import ClassPrompts

CLASSES = ("alarm_clock", "{}")


def test_a_method_asks_one_sentence_a_class_unless_it_says_more() -> None:
    for name, method in METHODS.items():
        if name != "rise":
            asked = method.prompts.sentences(CLASSES, ["art_painting", "sketch"])
            assert asked.all == class_prompts(CLASSES)


def test_rise_asks_its_seven_templates_and_one_sentence_a_style() -> None:
    asked = METHODS["rise"].prompts.sentences(CLASSES, ["art_painting", "sketch"]).all
    assert asked[:9] == [
        "itap of a alarm clock.",
        "a bad photo of the alarm clock.",
        "a origami alarm clock.",
        "a photo of the large alarm clock.",
        "a alarm clock in a video game.",
        "art of the alarm clock.",
        "a photo of the small alarm clock.",
        "a art painting of a alarm clock",
        "a sketch of a alarm clock",
    ]
    assert (len(asked), asked[-1]) == (18, "a sketch of a {}")


def test_a_class_text_is_the_direction_of_the_mean_of_its_sentences() -> None:
    wording = Wording(prompts={"b": ("one {}",)})
    sentences = ClassPrompts(("a {}", "the {}"), "a {} of a {}").sentences("abc", ["x", "y"], wording)
    assert sentences.all == [
        *("a a", "the a", "a x of a a", "a y of a a"),
        *("one b", "a x of a b", "a y of a b"),
        *("a c", "the c", "a x of a c", "a y of a c"),
    ]
    rows = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts, styled = sentences.class_texts(rows)
    for c, first in ((0, 0), (2, 7)):
        mean = (rows[first] + rows[first + 1]) / 2
        np.testing.assert_allclose(texts[c], mean / np.sqrt((mean**2).sum()), rtol=1e-6)
        np.testing.assert_array_equal(styled[c], rows[first + 2 : first + 4])
    np.testing.assert_array_equal(texts[1], rows[4])
    np.testing.assert_array_equal(styled[1], rows[5:7])


def test_one_sentence_leaves_a_class_text_as_it_was_sold() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    texts, styled = ClassPrompts().sentences(CLASSES, ()).class_texts(rows)
    np.testing.assert_array_equal(texts, rows)
    assert styled.size == 0


def test_the_words_and_prompts_that_somebody_gives_stand_for_those_of_any_method() -> None:
    wording = Wording(("the {}, a {shoe}",), {"n01": "tall boot"}, {"sock_x": ("my {}", "a sock")})
    classes = ("n01", "sock_x", "flip_flop")
    for method in METHODS.values():
        asked = method.prompts.sentences(classes, (), wording).plain
        assert asked == (
            ("the tall boot, a {shoe}",), ("my sock x", "a sock"), ("the flip flop, a {shoe}",),
        )  # fmt: skip
