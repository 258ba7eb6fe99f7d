"""From options to a connection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from client.api.options import AskOptions, BulkOptions, VendorOptions
from client.deferral.asking import Asker
from client.errors import ClientError
from client.learning.student_metadata import StudentMetadata
from client.progress import Display, ProgressListener
from client.runs.connection import Connection


def connect(options: VendorOptions, progress: ProgressListener | None) -> Connection:
    """Which vendor, key and cache the options name; nothing is opened yet."""
    batch, wait = (options.batch, options.wait) if isinstance(options, BulkOptions) else (False, True)
    return Connection(
        options.vendor,
        options.api_key_file,
        options.cache,
        Display.of(progress),
        options.protocol,
        options.model,
        batch,
        wait,
    )


@contextmanager
def open_asker(
    connection: Connection,
    ask: AskOptions,
    classes: Sequence[str],
    metadata: StudentMetadata,
    reject_below: float,
    *,
    patience: float,
) -> Iterator[Asker]:
    """What asks the vendor about images of which a student is not sure.

    Args:
        classes: the student's.
        metadata: what the student's file says.
        reject_below: an image whose cosine to every class text is lower shows none of the classes.
        patience: seconds to wait for another process that asks through the same cache.
    """
    with connection.teacher(run_id="asked", budget=None, fingerprint=metadata.taught_by) as teacher:
        try:
            asker = Asker.of_student(
                teacher, classes, metadata,
                budget=ask.budget, period=ask.period, patience=patience, reject_below=reject_below,
            )  # fmt: skip
        except ClientError as error:
            error.paid_in_vain = not teacher.vendor.states_fingerprints  # it was paid to show its model
            raise
        yield asker
