"""`client usage --reconcile` on a real purchase, and on one that the vendor's books do not bear out."""

import json
import sqlite3
from pathlib import Path

import httpx
import pytest

from client.cli.main import main
from tests.support.vendor_process import VendorProcess


def test_receipts_and_ledger_agree_until_somebody_changes_one(
    vendor_process: VendorProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = vendor_process.create_key()
    monkeypatch.setenv("TUITION_API_KEY", key)
    monkeypatch.setenv("TUITION_VENDOR_URL", vendor_process.url)
    cache = tmp_path / "cache.db"
    monkeypatch.setenv("TUITION_CACHE", str(cache))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    texts = [part for number in range(40) for part in ("--text", f"text {number}")]
    assert run("embed", "--out", str(tmp_path / "out.npy"), *texts)[0] == 0
    code, out, _ = run("usage", "--reconcile", "--json")
    found = json.loads(out)
    assert (code, found["matched"], found["queries"], found["cost_micros"]) == (0, 2, 40, 800)
    assert found["differences"] == []
    # What was bought is proved to others, who ask nobody.
    found = json.loads(run("receipts", "verify", "--json")[1])
    assert (found["receipts"], found["queries"], found["proven"], found["problems"]) == (2, 40, 40, [])
    exported, keys = tmp_path / "bought.json", tmp_path / "jwks.json"
    assert run("receipts", "export", str(exported))[:2] == (0, f"2 signed receipts in {exported}.\n")
    keys.write_bytes(httpx.get(f"{vendor_process.url}/.well-known/jwks.json").content)
    code, out, _ = run("receipts", "verify", str(exported), "--keys", str(keys))
    assert (code, "40 queries, 800 micros" in out) == (0, True)
    assert "compare them" in run("receipts", "verify", str(exported))[1]
    exported.write_text(exported.read_text().replace('"text","', '"image","'))
    assert run("receipts", "verify", str(exported))[0] == 1
    # Files that are no images are refused and cost nothing, and what curl buys needs no receipt.
    (tmp_path / "bad.png").write_text("no image")
    run("embed", "--out", str(tmp_path / "bad.npy"), "--images", str(tmp_path / "bad.png"))
    headers = {"authorization": f"Bearer {key}"}
    body = {"inputs": [{"text": "a"}]}
    by_curl = httpx.post(f"{vendor_process.url}/embed", json=body, headers=headers, timeout=30)
    assert by_curl.status_code == 200
    code, out, _ = run("usage", "--reconcile", "--json")
    found = json.loads(out)
    assert (code, found["matched"], found["differences"]) == (0, 2, [])
    assert found["elsewhere"] == {"charges": 1, "queries": 1, "cost_micros": 20, "of_other_keys": 0}
    assert "1 charges were made elsewhere" in run("usage", "--reconcile")[1]
    with sqlite3.connect(cache) as connection:
        connection.execute("UPDATE receipts SET cost_micros = cost_micros - 1 WHERE queries = 8")
    connection.close()
    assert run("usage", "--reconcile")[0] == 1
    (difference,) = json.loads(run("usage", "--reconcile", "--json")[1])["differences"]
    assert "micros: 159 by the receipt, 160 by entry" in difference["problem"]
