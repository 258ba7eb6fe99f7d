"""Whether a vendor keeps the projects of its customers apart."""

from client.options.vendor import IsolationOptions, VendorOptions
from client.progress import ProgressListener
from client.proofs.isolation import Isolation, IsolationTest
from client.runs.connection import Connection


def isolation_test(options: IsolationOptions, *, progress: ProgressListener | None = None) -> Isolation:
    """Have one key try to see and to touch what another one has at the vendor. It costs nothing.

    Raises:
        UsageError: no wall stands between these keys, or one of them cannot be read.
        VendorError: the vendor does not answer, or refuses.
    """
    other = VendorOptions(vendor=options.vendor, api_key_file=options.other_key_file)
    with Connection(options, progress).vendor() as first, Connection(other, progress).vendor() as second:
        return IsolationTest(first, second).run()
