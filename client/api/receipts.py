"""A vendor's receipts: checked without the vendor, and exported for others."""

from pathlib import Path

from client.options.vendor import CacheOptions
from client.progress import ProgressListener
from client.proofs import evidence
from client.proofs.evidence import Evidence
from client.proofs.swap import SwapCheck
from client.runs.storage import Storage


def verify_receipts(options: CacheOptions, *, progress: ProgressListener | None = None) -> Evidence:
    """Check every signed receipt in the cache, and every embedding against what its receipts say was sold.

    Raises:
        UsageError: there is no cache.
        CacheError: the cache cannot be read.
    """
    with Storage(options, progress).cache(must_exist=True) as cache:
        return evidence.check_cache(cache)


def export_receipts(options: CacheOptions, file: Path, *, progress: ProgressListener | None = None) -> int:
    """Write every signed receipt in the cache to a file that anybody can check; returns how many.

    Raises:
        UsageError: there is no cache.
        CacheError: the cache cannot be read.
        ClientError: the file cannot be written.
    """
    with Storage(options, progress).cache(must_exist=True) as cache:
        return evidence.export_receipts(cache, file)


def verify_receipts_file(file: Path, keys: Path | None = None) -> Evidence | SwapCheck:
    """Check what `export_receipts` wrote, or the evidence of a canary.

    Args:
        file: the exported file.
        keys: the vendor's keys, as its `/.well-known/jwks.json` has them; without it, those in the file
            are believed to be the vendor's.

    Raises:
        UsageError: a file cannot be read, or is something else.
    """
    return evidence.check_file(file, None if keys is None else evidence.read_keys(keys))
