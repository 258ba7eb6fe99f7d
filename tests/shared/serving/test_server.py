"""The server of the vendor and of students."""

import subprocess
import sys

import pytest

# Tells how many connections a server may have whose application opens so many descriptors as it starts, in a
# process of its own: what a server sets stays.
_CONNECTIONS = """
import os, resource, signal, sys
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from shared.serving import connections, server
from shared.serving.capacity import Capacity

made = []

class Noted(connections.Config):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        made.append(self)

@asynccontextmanager
async def lifespan(app):
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(int(sys.argv[1]))]
    yield
    for each in opened:
        os.close(each)

def on_ready():
    print(made[0].most)
    os.kill(os.getpid(), signal.SIGTERM)

resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
connections.Config = Noted
app = Starlette(lifespan=lifespan)
app.state.capacity = Capacity(max_inputs=1, max_bytes=1, max_seconds=1)
server.serve(app, server.bind("127.0.0.1", 0), on_ready)
"""


@pytest.mark.parametrize(("opened", "least", "most"), [(0, 750, 800), (100, 550, 600), (600, 250, 250)])
def test_connections_leave_descriptors_to_what_the_application_opens(
    opened: int, least: int, most: int
) -> None:
    command = [sys.executable, "-c", _CONNECTIONS, str(opened)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert least <= int(told) <= most
