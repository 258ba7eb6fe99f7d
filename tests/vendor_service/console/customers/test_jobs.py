"""Bulk jobs at the console."""

from pathlib import Path

import pytest

from tests.vendor_service.batches.held_model import HeldModel
from tests.vendor_service.console.customers.people import HOUR, PAGES, admin_of, path_of, paths, signed_in
from tests.vendor_service.console.jobs import begun, ended
from tests.vendor_service.console.visits import told_by
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import Scope
from vendor_service.acts import accounts as account_acts
from vendor_service.acts.act import Act
from vendor_service.database import session as sessions
from vendor_service.terms import money as money_shown


def test_jobs_are_seen_with_their_cost_and_their_files_are_sent_to_who_may_buy(vendor: LocalVendor) -> None:
    key = vendor.key()
    visit = signed_in(vendor, key)
    assert "There are no jobs" in visit.page("/batches")
    job = ended(vendor, key, begun(vendor, key, "a", "b", "c" * 100_000, metadata={"for": "the archive"}))
    page = visit.page("/batches")
    for shown in (job["id"], "completed", "for: the archive", "3 <span class=\"soft\">of 3</span>, 1 refused",
                  f'<td class="n" data-of="Charged">{money_shown(job["cost_micros"])}</td>'):  # fmt: skip
        assert shown in page, shown
    headers = {"authorization": f"Bearer {key}"}
    for file_id in (job["input_file_id"], job["output_file_id"], job["error_file_id"]):
        assert f"/console/batches/files/{file_id}" in page
        sent = visit.get(f"/batches/files/{file_id}")
        assert sent.content == vendor.http.get(f"/v1/files/{file_id}/content", headers=headers).content
        assert sent.headers["content-disposition"] == f'attachment; filename="{file_id}.jsonl"'
    path = f"/batches/files/{job['output_file_id']}"
    reader = signed_in(vendor, vendor.another_key(key, Scope.READ_USAGE))
    assert "/batches/files/" not in reader.page("/batches")
    assert reader.get(path).status_code == 403
    assert vendor.http.get(f"/console{path}").status_code == 303
    with vendor.books.write() as session:
        account_acts.suspend(Act(session, "os:test", vendor.clock), vendor.account(key).name)
    assert visit.get(path).status_code == 303  # that signs out
    assert signed_in(vendor, key).get(path).status_code == 403


def test_every_page_and_question_takes_one_connection_to_the_books(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldModel(monkeypatch)
    held.stop_at("wait")
    one = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 20}
    monkeypatch.setattr(sessions, "_CONNECTIONS", one)
    with LocalVendor(tmp_path, batch_store=str(tmp_path / "store")) as vendor:
        key = vendor.key()
        ended(vendor, key, begun(vendor, key, "a"))
        vendor.clock.advance(31 * 24 * HOUR)  # the invoice of this month is issued by who looks at it
        admin, job = admin_of(vendor, key), begun(vendor, key, "wait")
        assert held.stopped.wait(20)
        try:
            for pattern in PAGES:
                usual = 422 if pattern.endswith(".xml") else 200  # nobody has named seller and buyer
                assert admin.get(path_of(pattern, key)).status_code == usual, pattern
            assert "answered" in admin.ask(f"/batches/{job['id']}/cancel").text
        finally:
            held.go()  # else a failure would be that the vendor does not stop


def test_without_jobs_there_is_no_page_of_them() -> None:
    assert not [each for each in paths(runs_jobs=False) if "batches" in each]


def test_a_job_is_cancelled_after_a_question_that_says_what_stays(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vendor.key()
    admin, held = admin_of(vendor, key), HeldModel(monkeypatch)
    held.stop_at("wait")
    job = begun(vendor, key, "wait", "b")
    assert held.stopped.wait(20)
    page = admin.page("/batches")
    assert "in progress" in page
    assert "0.00002 held" in page
    asked = admin.ask(f"/batches/{job['id']}/cancel")
    assert "2 of its 2 lines are not answered" in asked.text
    assert "at most 0.00002, is free again" in asked.text
    assert vendor.get(f"/v1/batches/{job['id']}", key)["status"] == "in_progress"
    assert admin.confirm(f"/batches/{job['id']}/cancel", asked).headers["location"] == "/console/batches"
    held.go()
    assert vendor.get(f"/v1/batches/{job['id']}", key)["status"] == "cancelled"
    assert "has ended" in told_by(admin, admin.ask(f"/batches/{job['id']}/cancel"))
    assert vendor.account(key).held_micros == 0
