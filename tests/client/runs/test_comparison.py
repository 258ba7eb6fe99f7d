"""A comparison before it buys and trains: what it reads, what it refuses, and how its runs are named."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from client.errors import DataError, UsageError
from client.learning.recipe import Recipe, Variant
from client.progress import Display
from client.runs.comparison import Comparison, ComparisonConfig
from client.runs.connection import Connection
from client.runs.dataset import read_dataset
from tests.client.toy import make_folder


def _comparison(
    data: Path, out: Path, *, targets: Sequence[str] = (), unlabelled: tuple[str, ...] = ()
) -> Comparison:
    """One that neither buys nor connects."""
    config = ComparisonConfig(
        data,
        [Variant("erm", "erm", Recipe())],
        targets=targets,
        seeds=[0],
        student="tf_efficientnet_lite0",
        image_size=32,
        unlabelled=unlabelled,
    )
    connection = Connection("", None, out.parent / "cache.db", Display())
    return Comparison(config, out, connection, device="cpu")


def test_a_link_to_nowhere_among_unlabelled_images_counts_by_its_name(tmp_path: Path) -> None:
    pool, out = make_folder(tmp_path / "pool", images=1), tmp_path / "table"
    link = pool / "red" / "circle" / "gone.png"
    link.symlink_to("nowhere.png")
    out.mkdir()
    (out / "comparison.json").write_text('{"run_id": "1", "images": "other ones"}')
    comparison = _comparison(make_folder(tmp_path / "toy", images=1), out, unlabelled=(str(pool),))
    with pytest.raises(UsageError, match="have changed since"):
        comparison.quote()


def test_a_table_behind_a_link_is_read_under_the_links_name(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "toy", images=1)
    images = [path.relative_to(data) for path in sorted(data.rglob("*.png"))]
    rows = [f"{path},{path.parts[1]},{path.parts[0]}\n" for path in images]
    (tmp_path / "stored").write_text("path,label,domain\n" + "".join(rows))  # as DVC keeps it
    (data / "labels.csv").symlink_to("../stored")
    cells = _comparison(data / "labels.csv", tmp_path / "table").cells
    assert [cell.target for cell in cells] == ["dark", "light", "red"]
    assert {len(read_dataset(cell.config, Display()).examples) for cell in cells} == {6}


def test_class_names_alone_are_nothing_to_compare_on(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    for targets in ((), ("red",)):
        with pytest.raises(DataError, match="there is no labelled image"):
            _comparison(names, tmp_path / "table", targets=targets)


def test_each_domain_of_a_table_has_a_folder_of_its_own_whatever_its_name(tmp_path: Path) -> None:
    names = {
        "red": "erm-red-0",
        "100% cotton": "erm-100% cotton-0",
        "2024/05": "erm-2024%2F05-0",
        "2024%2F05": "erm-2024%252F05-0",
        "2024%252F05": "erm-2024%25252F05-0",
        "a/../../../elsewhere": "erm-a%2F..%2F..%2F..%2Felsewhere-0",
        "a\0": "erm-a%00-0",
        "a%00": "erm-a%2500-0",
    }
    table = tmp_path / "mine.jsonl"
    rows = [{"path": f"{n}.png", "label": "x", "domain": name} for n, name in enumerate(names)]
    for row in rows:
        (tmp_path / row["path"]).touch()
    table.write_text("\n".join(map(json.dumps, rows)))
    cells = _comparison(table, tmp_path / "table").cells
    assert {cell.target: cell.run.path for cell in cells} == {
        domain: tmp_path / "table" / "runs" / name for domain, name in names.items()
    }
