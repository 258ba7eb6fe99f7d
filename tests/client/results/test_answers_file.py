"""Answers about images as a table."""

import csv
from pathlib import Path
from typing import Any

from client.results.answers_file import write_answers


def test_an_image_that_shows_none_of_the_classes_has_an_empty_class_first(tmp_path: Path) -> None:
    ranked = {"cat": 0.5, "dog": 0.25}
    rows: list[dict[str, Any]] = [
        {"image": "a", "classes": ranked, "class": "cat"},
        {"image": "b", "classes": ranked, "class": None},
        {"image": "c", "classes": {}, "skipped": "it is empty"},
    ]
    write_answers(tmp_path / "answers.csv", rows)
    with (tmp_path / "answers.csv").open(newline="") as file:
        head, *found = csv.reader(file)
    assert head == ["image", "class", "probability", "class_2", "probability_2", "skipped"]
    assert found == [
        ["a", "cat", "0.5", "dog", "0.25", ""],
        ["b", "", "", "cat", "0.5", ""],
        ["c", "", "", "", "", "it is empty"],
    ]
