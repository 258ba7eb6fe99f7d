"""The audit: ledger and audit log verified now and then, in another process so that no request waits."""

import asyncio
import json
import logging
import os
import sys
from contextlib import suppress

from vendor_service.database.session import Database
from vendor_service.metrics import Metrics

# The first is soon after the start: a vendor that is restarted every day is to be audited too.
_FIRST_AFTER_SECONDS = 600.0
_NICENESS = 10
_VENDOR = (sys.executable, "-c", "from vendor_service.cli.main import main; main()")

_log = logging.getLogger(__name__)


class Audit:
    """Verifies ledger and audit log every `every_hours` (0: never), and reports to Prometheus and the log."""

    def __init__(self, database: Database, metrics: Metrics, every_hours: int) -> None:
        self._every_seconds = 3600.0 * every_hours
        self._url = database.engine.url.render_as_string(hide_password=False)
        self._faulty = metrics.gauge("ledger_faulty_accounts", "Accounts whose books are not in order.")
        self._log_faulty = metrics.gauge(
            "audit_log_faulty", "Whether the audit log is not in order: 1 if so."
        )
        # 0 until the first audit: this process does not know yet, and the alert counts from before that.
        self._verified = metrics.gauge(
            "ledger_verified_timestamp_seconds",
            "When this process last verified the whole ledger; 0 for never.",
        )

    async def repeat(self) -> None:
        """Do it again and again, until cancelled."""
        if not self._every_seconds:
            return
        await asyncio.sleep(_FIRST_AFTER_SECONDS)
        while True:
            await self.once()
            await asyncio.sleep(self._every_seconds)

    async def once(self) -> None:
        """Verify the whole ledger, and the audit log."""
        self._tell(*await self._verify("ledger"))
        self._tell_of_log(*await self._verify("audit"))

    async def _verify(self, what: str) -> tuple[bytes, bytes]:
        try:
            verifying = await asyncio.create_subprocess_exec(
                *(*_VENDOR, what, "verify", "--json"),
                # In the environment: other users can read a command line, and the URL may hold a password.
                env=os.environ | {"VENDOR_DATABASE_URL": self._url},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:  # the system has no room for a process now
            return b"", str(error).encode()
        try:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, verifying.pid, _NICENESS)
            return await verifying.communicate()
        finally:
            if verifying.returncode is None:
                verifying.kill()
                await verifying.wait()

    def _tell(self, out: bytes, err: bytes) -> None:
        try:
            found = json.loads(out)
        except ValueError:
            _log.error("the ledger could not be verified: %s", err.decode(errors="replace").strip()[-500:])
            return
        faulty = [each for each in found if each["problem"]]
        for each in faulty:
            _log.error("the books of %s are not in order: %s", each["account"], each["problem"])
        self._faulty.set(len(faulty))
        self._verified.set_to_current_time()

    def _tell_of_log(self, out: bytes, err: bytes) -> None:
        try:
            problem = json.loads(out)["problem"]
        except ValueError:
            _log.error("the audit log could not be verified: %s", err.decode(errors="replace").strip()[-500:])
            return
        if problem:
            _log.error("the audit log is not in order: %s", problem)
        self._log_faulty.set(problem is not None)
