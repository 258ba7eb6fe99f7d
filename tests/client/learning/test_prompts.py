"""The sentences about a class, and the class text that they make together."""

import numpy as np
import torch

from client.data.names import class_prompts
from client.learning.methods import METHODS
from client.learning.prompts import ClassPrompts

CLASSES = ("alarm_clock", "{}")


def test_a_method_asks_one_sentence_a_class_unless_it_says_more() -> None:
    for name, method in METHODS.items():
        if name != "rise":
            assert method.prompts.sentences(CLASSES, ["art_painting", "sketch"]) == class_prompts(CLASSES)


def test_rise_asks_its_seven_templates_and_one_sentence_a_style() -> None:
    asked = METHODS["rise"].prompts.sentences(CLASSES, ["art_painting", "sketch"])
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


def test_a_class_text_is_the_direction_of_the_mean_of_its_templates() -> None:
    prompts = ClassPrompts(("a {}", "the {}"), "a {} of a {}")
    rows = np.random.default_rng(0).normal(size=(3 * 4, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts, styled = prompts.class_texts(torch.tensor(rows), 3)
    for c in range(3):
        mean = (rows[4 * c] + rows[4 * c + 1]) / 2
        np.testing.assert_allclose(texts[c], mean / np.sqrt((mean**2).sum()))
        np.testing.assert_array_equal(styled[c], rows[4 * c + 2 : 4 * c + 4])


def test_one_template_leaves_a_class_text_as_it_was_sold() -> None:
    rows = torch.nn.functional.normalize(torch.randn(3, 7), dim=1)
    texts, styled = ClassPrompts().class_texts(rows, 3)
    assert torch.equal(texts, rows)
    assert styled.numel() == 0
