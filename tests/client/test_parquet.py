"""Parquet of others is read within bounds, whatever it says of itself."""

import json
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client import parquet
from client.cache.archive import import_embeddings
from client.cache.cache import EmbeddingCache
from client.data.tables import read_table
from client.errors import DataError, UsageError
from tests.client import hostile_parquet
from tests.support.figures import holds
from tests.support.forking import Forked
from tests.support.vendor_process import forget_peak, resident_bytes

_MOST_BYTES = 64 * 2**20


def _read_all(folder: Path, exports: Sequence[Path], tables: Sequence[Path]) -> None:
    """Write of each file how much memory it took at most, and why it was refused."""
    cache = EmbeddingCache(folder / "cache.db")
    told = {}
    for file in [*exports, *tables]:
        before = forget_peak(os.getpid())
        said = "taken"
        try:
            _ = import_embeddings(cache, file) if file in exports else read_table(file, labelled=True)
        except UsageError as error:
            said = str(error)
        told[file.name] = (resident_bytes(os.getpid(), "VmHWM") - before, said)
    (folder / "told.json").write_text(json.dumps(told))


def test_no_file_takes_memory_for_what_it_only_claims(tmp_path: Path) -> None:
    exports = list(hostile_parquet.imports(tmp_path))
    tables = list(hostile_parquet.tables(tmp_path))
    # Where none was unpacked before: memory that is free again would be taken first, and not be seen.
    assert Forked(_read_all, tmp_path, exports, tables).wait(60) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert len(told) == 6
    for name, (grown, said) in told.items():
        assert "cannot be read" in said, name
        assert holds(grown / 2**20, _MOST_BYTES / 2**20, "MiB"), name


def test_a_damaged_file_is_read_or_refused_and_ends_nothing(tmp_path: Path) -> None:
    """In some such files pyarrow finds what ends its process, unless it is asked for less."""
    file, draw = tmp_path / "mine.parquet", random.Random(1)
    pq.write_table(pa.table({"path": [f"{n}.png" for n in range(50)], "label": ["a", "b"] * 25}), file)
    sound = file.read_bytes()
    for _ in range(100):
        changed = bytearray(sound)
        changed[draw.randrange(4, len(sound))] = draw.randrange(256)
        file.write_bytes(changed)
        with suppress(DataError):
            assert len(read_table(file, labelled=True)) <= 50


def test_no_memory_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"path": ["a.png"]}), file)
    for raised, said in (
        (MemoryError("realloc failed"), "takes more memory than there is"),
        (pa.ArrowNotImplementedError("no such encoding"), "no such encoding. Write it again"),
        (pa.ArrowKeyError("damaged"), "damaged"),
    ):

        def fail(*_: object, error: Exception = raised, **__: object) -> None:
            raise error

        monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", fail)
        with pytest.raises(DataError, match=said):
            read_table(file, labelled=False)


def test_the_sizes_of_pages_are_those_that_the_writer_states(tmp_path: Path) -> None:
    """The headers are read by this program and by pyarrow alike, with whatever else writers put into them."""
    file = tmp_path / "mine.parquet"
    numbers = range(5000)
    table = pa.table({"path": [f"{n}.png" for n in numbers], "label": [f"of class {n % 7}" for n in numbers]})
    for version, compression in (("1.0", "none"), ("2.0", "snappy"), ("2.0", "zstd")):
        pq.write_table(
            table,
            file,
            compression=compression,
            data_page_version=version,
            data_page_size=1024,
            row_group_size=2000,
            write_page_checksum=True,
            write_statistics=True,
        )
        footer = pq.read_metadata(file)
        with file.open("rb") as opened:
            groups = list(parquet._row_groups(opened))
            assert [rows for rows, _ in groups] == [2000, 2000, 1000]
            for group, (_, chunks) in zip(map(footer.row_group, range(3)), groups, strict=True):
                for number, (name, start, end) in enumerate(chunks):
                    column = group.column(number)
                    assert (name, end - start) == (column.path_in_schema, column.total_compressed_size)
                    sizes = list(parquet._page_sizes(opened, start, end))
                    # The footer counts headers too, which have some thirty bytes.
                    headers = column.total_uncompressed_size - sum(sizes)
                    assert 8 * len(sizes) <= headers <= 120 * len(sizes)
        assert len(read_table(file, labelled=True)) == len(numbers)


def test_an_image_that_rows_share_is_one_in_memory(tmp_path: Path) -> None:
    file, image = tmp_path / "rows.parquet", {"bytes": os.urandom(2**20), "path": None}
    pq.write_table(pa.table({"image": [image] * 50}), file, dictionary_pagesize_limit=2**22)
    with file.open("rb") as opened:
        assert parquet.ForeignParquet(opened).group(0, "image").nbytes < 2**22
