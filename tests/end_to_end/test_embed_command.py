"""`client embed` against the real vendor: what it writes, what it skips, and where it stops."""

import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from client.data.images import suffixes
from tests.client.toy import make_folder
from tests.end_to_end.command import Command
from tests.support.vendor_process import VendorProcess, wait_until


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _texts(count: int) -> list[str]:
    return [word for i in range(count) for word in ("--text", f"number {i}")]


def test_images_that_cannot_be_embedded_are_listed_and_free(
    client: Command, vendor_process: VendorProcess
) -> None:
    folder = client.folder / "photos"
    (folder / "below.png").mkdir(parents=True)
    Image.new("RGB", (32, 32), "green").save(folder / "below.png" / "good.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "gone.png").symlink_to("nothing")
    (folder / "notes.txt").write_text("not named as an image")
    (folder / "text.png").write_text("not an image")
    whole = (folder / "below.png" / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])  # which only the vendor finds out
    command = ["embed", "--text", "a square", "--images", "photos", "--out", "out.npy", "--json"]
    shown = client(*command, code=1)
    said = json.loads(shown.stdout)
    assert set(said["skipped"]) == {f"photos/{name}.png" for name in ("cut", "empty", "gone", "text")}
    assert (said["rows"], said["embedded"], said["queries_bought"], said["cost_micros"]) == (6, 2, 2, 120)
    assert said["left_out"] == {"not an image by name": 1}
    assert "Skipped photos/text.png: not a readable picture" in shown.stderr
    assert "Left out: 1 not an image by name." in shown.stderr
    rows = np.load(client.folder / "out.npy")
    assert rows.shape == (6, 256)
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, True, True, True, True]
    index = [json.loads(line) for line in (client.folder / "out.index.jsonl").read_text().splitlines()]
    assert [(line["row"], line["kind"], line["name"]) for line in index] == [
        (0, "text", "a square"),
        (1, "image", "photos/below.png/good.png"),
        *((n, "image", f"photos/{name}.png") for n, name in enumerate(("cut", "empty", "gone", "text"), 2)),
    ]
    assert [line["skipped"] is not None for line in index] == np.isnan(rows).all(axis=1).tolist()
    assert index[4]["skipped"] == "a broken link"
    assert vendor_process.charges(client.api_key).queries == 2


def test_hidden_files_are_not_bought(client: Command, vendor_process: VendorProcess) -> None:
    for n, name in enumerate(("shots/a.png", "shots/.cache/thumb.png", "shots/._b.png")):
        path = client.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (40 * n, 0, 0)).save(path)
    said = json.loads(client("embed", "--images", "shots", "--out", "out.jsonl", "--json").stdout)
    assert (said["rows"], said["queries_bought"], said["left_out"]) == (1, 1, {"hidden": 2})
    assert vendor_process.charges(client.api_key).queries == 1


def test_further_formats_are_sent_as_png(client: Command, vendor_process: VendorProcess) -> None:
    (client.folder / "shots").mkdir()
    kinds = [("TIFF", "tif"), ("GIF", "gif"), ("HEIF", "heic")]
    if ".avif" in suffixes():  # Pillow 11.0 has it not
        kinds.append(("AVIF", "avif"))
    for n, (kind, suffix) in enumerate(kinds):
        Image.new("RGB", (32, 32), (50 * n, 9, 9)).save(client.folder / "shots" / f"{n}.{suffix}", kind)
    (client.folder / "shots" / "raw.cr2").write_bytes(b"raw")
    said = json.loads(client("embed", "--images", "shots", "--out", "out.npy", "--json", code=1).stdout)
    assert (said["embedded"], said["queries_bought"]) == (len(kinds), len(kinds))
    assert said["skipped"] == {"shots/raw.cr2": "unsupported format (.cr2)"}
    assert vendor_process.charges(client.api_key).queries == len(kinds)
    for n in range(len(kinds)):
        Image.new("RGB", (32, 32), (50 * n, 9, 9)).save(client.folder / f"{n}.png")
    same = np.load(client.folder / "out.npy")
    client("embed", "--images", "*.png", "--out", "png.npy", "--budget", "4")
    assert (same[:2] == np.load(client.folder / "png.npy")[:2]).all()  # the lossless ones


def test_a_budget_that_ends_writes_nothing_and_goes_on_with_a_larger_one(
    client: Command, vendor_process: VendorProcess
) -> None:
    command = ["embed", *_texts(10), "--out", "out.jsonl", "--budget"]
    stopped = client(*command, "4", code=3)
    assert "Buying: 4/4, 80 micros in" in stopped.stderr
    assert "The budget of 4 queries" in stopped.stderr
    assert not (client.folder / "out.jsonl").exists()
    assert client(*command, "4", code=3).stdout == ""
    assert vendor_process.charges(client.api_key).queries == 4
    goes_on = client(*command, "10").stderr
    assert "Buying: 6/6, 120 micros, 4 cached in" in goes_on
    assert "6 bought" in goes_on
    assert len((client.folder / "out.jsonl").read_text().splitlines()) == 10
    assert vendor_process.charges(client.api_key).queries == 10


def test_a_quota_that_ends_is_a_resumable_stop(client: Command, vendor_process: VendorProcess) -> None:
    client.api_key = vendor_process.create_key(quota=3)
    stopped = client("embed", *_texts(10), "--out", "out.npy", code=3)
    assert "What was bought is kept" in stopped.stderr
    assert vendor_process.charges(client.api_key).queries == 3


def test_the_key_may_be_in_a_file(client: Command) -> None:
    (client.folder / "key").write_text(client.api_key + "\n")
    client.api_key = "tk_wrong"
    assert "TUITION_API_KEY" in client("usage", code=1).stderr
    assert "1000 of 1000 queries left" in client("usage", "--api-key-file", "key").stdout


def test_ctrl_c_ends_soon_and_the_same_command_goes_on(
    client: Command, vendor_process: VendorProcess
) -> None:
    client.api_key = vendor_process.create_key()
    command = ["embed", *_texts(1500), "--out", "out.npy"]
    with client.start(*command) as process:
        wait_until(lambda: vendor_process.charges(client.api_key).entries > 0)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command continues from here" in " ".join(said.split())
    assert "Buying: " in said
    assert "Traceback" not in said
    assert vendor_process.charges(client.api_key).queries < 1500
    client(*command)
    assert np.isfinite(np.load(client.folder / "out.npy")).all()
    assert vendor_process.charges(client.api_key).queries == 1500


def test_folders_patterns_and_lists_of_files_are_found_in_order(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, name in enumerate(("shots/a/1.png", "shots/b/2.png", "shots/3.png", "4.png")):
        path = client.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(path)
    (client.folder / "shots" / "a" / "notes.txt").write_text("no image")

    def names(*arguments: str) -> list[str]:
        client("embed", *arguments, "--out", "out.jsonl")
        lines = (client.folder / "out.jsonl").read_text().splitlines()
        return [json.loads(line)["name"] for line in lines]

    assert names("--images", "shots/*/*") == ["shots/a/1.png", "shots/b/2.png"]
    assert names("--images", "shots/**/*.png") == ["shots/3.png", "shots/a/1.png", "shots/b/2.png"]
    monkeypatch.setattr("sys.stdin", StringIO("4.png\n\nshots/3.png\n"))
    assert names("--images", "-", "--text", "a cat") == ["a cat", "4.png", "shots/3.png"]
    monkeypatch.setattr("sys.stdin", StringIO("a dog\r\na bird\n"))
    assert names("--text", "a cat", "--text", "-") == ["a cat", "a dog", "a bird"]
    shutil.copy(client.folder / "4.png", client.folder / os.fsdecode(b"caf\xe9.png"))
    typed = TextIOWrapper(BytesIO(b"caf\xe9.png\n"), encoding="utf-8", errors="strict")
    monkeypatch.setattr("sys.stdin", typed)
    assert names("--images", "-") == ["caf\udce9.png"]
    assert "once" in client("embed", "--text", "-", "--images", "-", "--out", "out.npy", code=2).stderr
    assert "does not exist" in client("embed", "--images", "none*.png", "--out", "out.npy", code=2).stderr


def test_every_format_holds_the_same(client: Command) -> None:
    Image.new("RGB", (32, 32), "green").save(client.folder / "good.png")
    (client.folder / "bad.png").write_text("no image")
    what = ["embed", "--text", "a cat", "--images", "bad.png", "--images", "good.png", "--out"]
    client(*what, "out.npy", code=1)
    for name in ("out.jsonl", "out.parquet"):
        assert "0 bought" in client(*what, name, "--budget", "0", code=1).stderr
    rows = np.load(client.folder / "out.npy")[[0, 2]]
    lines = [json.loads(line) for line in (client.folder / "out.jsonl").read_text().splitlines()]
    assert pq.read_table(client.folder / "out.parquet").to_pylist() == lines
    assert [(line["kind"], line["name"]) for line in lines] == [("text", "a cat"), ("image", "good.png")]
    assert np.array_equal(np.array([line["embedding"] for line in lines], dtype=np.float32), rows)
    assert ".parquet" in client(*what, "out.csv", code=2).stderr
    client("embed", "--out", "out.npy", code=2)


def test_money_can_be_capped_and_what_is_dear_is_asked_about(
    client: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["embed", *_texts(10), "--out", "out.npy"]
    stopped = client(*command, "--max-spend", "100", code=3).stderr
    assert "budget of 100 micros" in stopped
    assert "the same command with a --max-spend of at least 200 continues" in stopped
    assert vendor_process.charges(client.api_key).cost_micros == 100
    monkeypatch.setattr("client.api.confirm.ASK_ABOVE_MICROS", 99)
    monkeypatch.setattr("sys.stdin", StringIO(""))
    assert "100 micros" in client(*command, code=2).stderr
    assert vendor_process.charges(client.api_key).cost_micros == 100
    client(*command, "--yes")
    assert vendor_process.charges(client.api_key).cost_micros == 200


def test_the_sum_that_is_shown_is_the_ledgers(client: Command, vendor_process: VendorProcess) -> None:
    command = ["embed", *_texts(40), "--out", "out.npy", "--json"]
    client(*command, "--budget", "15", code=3)
    before = vendor_process.charges(client.api_key)
    shown = client(*command)
    said = json.loads(shown.stdout)
    after = vendor_process.charges(client.api_key)
    assert said["queries_bought"] == after.queries - before.queries == 25
    assert said["cost_micros"] == after.cost_micros - before.cost_micros == 500
    assert "Buying: 25/25, 500 micros" in shown.stderr


def test_the_cache_is_shown_checked_and_carried_elsewhere(
    client: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no cache" in client("cache", "stats", code=2).stderr
    client("embed", *_texts(5), "--out", "out.npy")
    held = json.loads(client("cache", "stats", "--json").stdout)
    assert [(h["kind"], h["embeddings"]) for h in held["holdings"]] == [("text", 5)]
    assert held["paid"] == {"queries": 5, "cost_micros": 100}
    assert "Paid: 5 queries for 100 micros" in client("cache", "stats").stdout
    assert client("cache", "verify").stdout == "5 embeddings, 0 damaged.\n"
    client("cache", "export", "bought.safetensors")
    assert "5 of 5" in client("cache", "import", "bought.safetensors", "--cache", "other.db").stdout
    shown = client("embed", *_texts(5), "--out", "again.npy", "--cache", "other.db", "--json")
    assert json.loads(shown.stdout)["queries_bought"] == 0
    again = (client.folder / "again.npy").read_bytes()
    assert again == (client.folder / "out.npy").read_bytes()

    with closing(sqlite3.connect(client.folder / "other.db")) as connection, connection:
        connection.execute("UPDATE embeddings SET checksum = checksum + 1 WHERE id = 1")
    assert "damaged" in client("cache", "verify", "--cache", "other.db", code=1).stderr
    assert client("cache", "prune", "--damaged", "--cache", "other.db").stdout == "1 embeddings deleted.\n"
    fingerprint = held["holdings"][0]["fingerprint"]
    prune = ["cache", "prune", "--cache", "other.db", "--model-fingerprint", fingerprint]
    assert "Add --yes" in client(*prune, code=2).stderr
    assert client(*prune, "--yes").stdout == "4 embeddings deleted.\n"
    assert "was made" in client("cache", "create", "--half", "--cache", "half.db").stdout
    client("cache", "export", "bought.parquet")
    assert "5 of 5" in client("cache", "import", "bought.parquet", "--cache", "half.db").stdout
    assert "exists already" in client("cache", "create", "--half", "--cache", "half.db", code=2).stderr
    assert "Say what to delete" in client("cache", "prune", code=2).stderr
    assert vendor_process.charges(client.api_key).queries == 5


def test_a_plan_says_what_the_quota_leaves_and_how_long_it_takes(
    client: Command, vendor_process: VendorProcess
) -> None:
    make_folder(client.folder / "toy")
    command = ["plan", "--data", "toy", "--target-domain", "red"]
    client.api_key = vendor_process.create_key(quota=70)
    client("embed", *_texts(64), "--out", "out.npy")
    plan = json.loads(client(*command, "--json").stdout)
    quote = plan["outlook"]["quote"]
    assert (quote["quota_left"], quote["fits_quota"], quote["fits_money"]) == (6, False, True)
    assert quote["cost_micros"] == plan["purchase"]["cost_micros"] > 0
    assert plan["outlook"]["seconds"] is None  # texts were bought, and no images
    assert "How long it takes is unknown" in " ".join(client(*command).stdout.split())
    with closing(sqlite3.connect(client.folder / "cache.db")) as connection, connection:
        connection.execute("DELETE FROM receipts")
        connection.executemany(
            "INSERT INTO receipts (idempotency_key, request_id, run_id, fingerprint, counts, queries, "
            "cost_micros, received_at) "
            "VALUES (?, 'r', 'r', (SELECT fingerprint FROM models), '{\"image\": 30}', 30, 0, ?)",
            [("a", 1_767_225_600.0), ("b", 1_767_225_610.0)],
        )
    shown = " ".join(client(*command).stdout.split())
    assert "quota leaves 6 queries: not enough" in shown
    assert "│ images to buy │ dark │ light │" in shown.replace("┃", "│")
    assert "│ all " in shown
    assert f"it takes {plan['purchase']['to_buy'] / 3:.0f} s" in shown
    capped = json.loads(client(*command, "--json", "--max-spend", "360", "--select", "random").stdout)
    assert (capped["purchase"]["to_buy"], capped["purchase"]["cost_micros"]) == (6, 360)
    client.api_key = ""
    assert json.loads(client(*command, "--json").stdout)["outlook"]["quote"] is None
    assert "standard price" in client(*command).stdout
    client.api_key = "tk_wrong"
    assert "TUITION_API_KEY" in client(*command, code=1).stderr
    client.api_key = vendor_process.create_key(credit_micros=99)
    shown = " ".join(client(*command, "--budget", "999").stdout.split())
    assert "credit does not suffice" in shown
    assert "quota" not in shown
    assert f"{999 - plan['purchase']['to_buy']} queries of the budget would stay unspent" in shown
