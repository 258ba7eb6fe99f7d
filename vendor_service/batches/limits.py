"""The limits of bulk jobs."""

from dataclasses import dataclass

from vendor_service.clock import DAY

MOST_FILE_BYTES = 4 * 1024**3
MOST_LINES = 50_000
MOST_JOBS = 100  # of an account, in progress


@dataclass(frozen=True)
class BatchLimits:
    """The limits of one file, of all files and jobs of an account, and how long files are kept."""

    max_file_bytes: int
    max_line_bytes: int
    max_lines: int
    account_bytes: int
    account_jobs: int
    keep_days: int

    @property
    def keep_micros(self) -> int:
        """For how many microseconds files are kept."""
        return self.keep_days * DAY
