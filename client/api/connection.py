"""From options to a connection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from client.errors import ClientError
from client.learning.student_metadata import StudentMetadata
from client.options.students import AskOptions
from client.options.vendor import CacheOptions, VendorOptions
from client.progress import Display, ProgressListener
from client.runs.connection import Connection
from client.runs.storage import Storage
from client.serving.asking import Asker


def connect(options: VendorOptions, progress: ProgressListener | None) -> Connection:
    """Which vendor, key and cache the options name; nothing is opened yet."""
    return Connection(options, Display.of(progress))


def storage(options: CacheOptions, progress: ProgressListener | None) -> Storage:
    """Which cache the options name; nothing is opened yet."""
    return Storage(options, Display.of(progress))


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
            asker = Asker(teacher, classes, metadata, ask, patience=patience, reject_below=reject_below)
        except ClientError as error:
            error.paid_in_vain = not teacher.vendor.states_fingerprints  # it was paid to show its model
            raise
        yield asker
