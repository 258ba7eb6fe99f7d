"""The work of processes that are supervised, apart from what takes seconds to import."""

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vendor_service.errors import UsageError
from vendor_service.run import workers
from vendor_service.run.worker_metrics import Worker


def serve(folder: Path, worker: Worker, on_ready: Callable[[str], None]) -> None:
    """Note that it lives, and wait for SIGTERM."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    (folder / f"{worker.number}-{os.getpid()}").touch()
    on_ready(f"one of {worker.workers}")
    while not stopped:
        time.sleep(0.01)
    (folder / f"{worker.number}-{os.getpid()}").unlink()


def refuse(worker: Worker, _on_ready: Callable[[str], None]) -> None:
    raise UsageError(f"worker {worker.number} cannot")


def die(_worker: Worker, _on_ready: Callable[[str], None]) -> None:
    os._exit(3)


def be_killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def reread(folder: Path, first: int, worker: Worker, on_ready: Callable[[str], None]) -> None:
    """Note each SIGHUP; the second worker gets its first one before it is ready."""
    signal.signal(signal.SIGHUP, lambda *_: (folder / f"{worker.number}-hangup").touch())
    if worker.number == 1:
        os.kill(first, signal.SIGHUP)
        time.sleep(0.2)
        assert not (folder / "1-hangup").exists()
    serve(folder / "living", worker, on_ready)


def serve_two(folder: str) -> None:
    """Serve in two workers until killed."""
    workers._PRELOADED = [__name__]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers.Workers(partial(serve, Path(folder)), 2, listener).run(lambda _: None)
