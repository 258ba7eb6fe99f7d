"""Imported by the server of forks: a vendor of tests measures the passes of its model less often.

And neither it nor a client waits for the disk.
"""

from tests.support.undurable import make_undurable
from vendor_service.encoder import graph

graph._ROUNDS = 2
make_undurable()
