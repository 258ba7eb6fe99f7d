"""How a line of the log is written; tests/vendor_service/run/ has what a vendor writes."""

import logging

from shared.http.logging import TextFormatter


def test_text_lines_carry_the_same_fields() -> None:
    record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "fields": {"status": 200}})
    assert TextFormatter().format(record).endswith("INFO request status=200")
