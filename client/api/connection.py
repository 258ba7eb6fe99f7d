"""From options to a connection."""

from client.api.options import VendorOptions
from client.progress import Display, ProgressListener
from client.runs.connection import Connection


def connect(options: VendorOptions, progress: ProgressListener | None) -> Connection:
    """Which vendor, key and cache the options name; nothing is opened yet."""
    return Connection(
        options.vendor,
        options.api_key_file,
        options.cache,
        Display.of(progress),
        options.protocol,
        options.model,
    )
