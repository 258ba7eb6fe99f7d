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
from shared.http import connections, server
from shared.http.capacity import Capacity

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


# Prints what is answered to somebody who asks, while the server is told to stop, for what takes a second, or
# sends a body that does not come, and how long the server takes to stop.
_STOPPED = """
import http.client, os, signal, sys, threading, time
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from shared.http import server
from shared.http.capacity import Capacity

asked, drain_seconds = sys.argv[1], float(sys.argv[2])
server._END_SECONDS, server._DRAIN_SECONDS = 0, drain_seconds
bound = server.bind("127.0.0.1", 0)
address = bound.getsockname()[:2]
connection = http.client.HTTPConnection(*address)

def take_a_second(_):
    stop()
    time.sleep(1)
    return PlainTextResponse("done")

async def read(request):
    stop()
    await request.body()
    return PlainTextResponse("read")

def stop():
    global stopped
    stopped = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)

def ask():
    if asked == "second":
        connection.request("GET", "/second")
    elif asked == "body":
        connection.putrequest("POST", "/body")
        connection.putheader("content-length", "1000")
        connection.endheaders()
    else:
        connection.request("GET", "/none")
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())
    if asked == "none":
        stop()  # with a connection that may ask again

app = Starlette(routes=[Route("/second", take_a_second), Route("/body", read, methods=["POST"])])
app.state.capacity = Capacity(max_inputs=1, max_bytes=1, max_seconds=1)
asking = threading.Thread(target=ask)
server.serve(app, bound, asking.start)
asking.join()
print(time.monotonic() - stopped)
"""


@pytest.mark.parametrize(
    ("asked", "drain_seconds", "answer", "least", "most"),
    [
        ("second", 60, "200 done", 1, 30),
        ("body", 1, "500 Internal Server Error", 1, 30),
        ("none", 60, "404 Not Found", 0, 30),
    ],
    ids=["what is in hand is answered", "no body is waited for without end", "an idle connection is not"],
)
def test_a_server_that_is_told_to_stop(
    asked: str, drain_seconds: int, answer: str, least: int, most: int
) -> None:
    command = [sys.executable, "-c", _STOPPED, asked, str(drain_seconds)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0] == answer
    assert least <= float(told[1]) < most
