"""Processes that start in milliseconds: forked from one that has imported the client and the vendor."""

import json
import os
import resource
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import forkserver, get_context, util
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, Self

from shared.processes import fork_server, forked

# One server of forks for a whole process of tests: what is preloaded is for all who use it.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "client.api.account",
        "client.api.comparison",
        "client.api.distillation",
        "client.api.embedding",
        "client.api.students",
        "client.cli.main",
        "client.cli.tables",
        "client.serving.app",
        "client.serving.student",
        "vendor_service.cli.main",
        "vendor_service.run.serve",
        "torch._dynamo",  # which whatever trains would import each time, and these two
        "torch.utils.tensorboard",
        "onnx",
        "encodings.idna",  # and whoever asks a vendor
        "httpcore",
        "pydantic.v1",  # and servers what follows
        "uvicorn.lifespan.on",
        "uvicorn.loops.auto",
        "tests.support.preloaded",
    ]
)


class Forked:
    """A process that runs `target`, with what `subprocess.Popen` has."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        self._process = CONTEXT.Process(target=target, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


class ForkedCommand(Forked):
    """The `main` of a module in a process and session of its own.

    Standard error is appended to the file `log`. It may have so many `descriptors`, if not as many as the
    tests. Used as a context manager, it is killed at the end of the block if it still runs.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        *,
        descriptors: int | None = None,
    ) -> None:
        reads, writes = CONTEXT.Pipe(duplex=False)
        super().__init__(_run, module, list(arguments), folder, dict(environment), log, descriptors, writes)
        writes.close()
        self.stdout = os.fdopen(os.dup(reads.fileno()))
        reads.close()
        self._log = log

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it printed, and what is in its log."""
        with self.stdout as stdout:
            printed = stdout.read()
        self.wait(timeout)
        return printed, self._log.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.poll() is None:
            self.kill()
            self.wait()
        self.stdout.close()


class ForkedOn(Forked):
    """The same with all three streams on one file, a terminal say, or standard output on another.

    It closes both.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        file: int,
        stdout: int | None = None,
    ) -> None:
        files = (file, file if stdout is None else stdout, file)
        streams = [Connection(os.dup(each)) for each in files]
        for each in set(files):
            os.close(each)
        super().__init__(_run_on, module, list(arguments), str(folder), dict(environment), streams)
        for stream in streams:
            stream.close()


# What a script runs in a program's place: it hands its arguments and streams to the tests, and waits.
_STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
tests = socket.socket(socket.AF_UNIX)
tests.connect({address!r})
asked = json.dumps([{module!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(tests, [len(asked).to_bytes(4, "big")], [0, 1, 2])
tests.sendall(asked)
pid = int(tests.recv(16))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
sys.exit(int(tests.recv(16)))
"""


@contextmanager
def forked_programs(folder: Path) -> Iterator[Path]:
    """A folder with `client` and `vendor`, for scripts that run them by name; each is forked from here."""
    programs = folder / "programs"
    programs.mkdir(parents=True)
    with TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as tests:
        tests.bind(address := f"{short}/tests")  # a path of at most a hundred letters
        tests.listen()
        for name, module in (("client", "client.cli.main"), ("vendor", "vendor_service.cli.main")):
            stand_in = programs / name
            stand_in.write_text(_STAND_IN.format(python=sys.executable, address=address, module=module))
            stand_in.chmod(0o755)
        serving = threading.Thread(target=_serve_programs, args=(tests,))
        serving.start()
        try:
            yield programs
        finally:
            tests.shutdown(socket.SHUT_RDWR)
            serving.join()


def _serve_programs(tests: socket.socket) -> None:
    with ThreadPoolExecutor() as pool:
        while True:
            try:
                asked, _ = tests.accept()
            except OSError:
                return
            pool.submit(_run_program, asked)


def _run_program(asked: socket.socket) -> None:
    """Run one program to its end for whoever asked."""
    with asked:
        size, files, _, _ = socket.recv_fds(asked, 4, 3)
        left, parts = int.from_bytes(size, "big"), list[bytes]()
        while left:
            parts.append(asked.recv(left))
            left -= len(parts[-1])
        streams = [Connection(file) for file in files]
        process = Forked(_run_on, *json.loads(b"".join(parts)), streams)
        for each in streams:
            each.close()
        asked.sendall(str(process.pid).encode())
        code = process.wait()
        asked.sendall(str(code if code >= 0 else 128 - code).encode())


def launch_decoding(control: socket.socket) -> Forked:
    """Launch as `fork_server.launch` does, without the two seconds of imports."""
    return Forked(_serve_decoding, control)


class Nursery:
    """A process that does the same for a process that was itself forked: the server of forks knows no such.

    Make it while there is one thread. It ends with whoever made it.
    """

    def __init__(self) -> None:
        self._mine, its = socket.socketpair()
        if os.fork() == 0:
            # A copy of what a vendor listens on would let connections in that nobody answers.
            os.closerange(3, its.fileno())
            os.closerange(its.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
            _nurse(its)
        its.close()

    def launch_decoding(self, control: socket.socket) -> "Nursed":
        """Launch as `fork_server.launch` does."""
        socket.send_fds(self._mine, [b"."], [control.fileno()])
        return Nursed(int(self._mine.recv(32)))


def _nurse(asked: socket.socket) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # which has the system reap
    while True:
        _, files, _, _ = socket.recv_fds(asked, 1, 1)
        if not files:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            asked.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            forked.main(files[0])
        os.close(files[0])
        asked.sendall(str(pid).encode())


class Nursed:
    """Another process's child, with what `fork_server.Launched` asks for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._file = os.pidfd_open(pid)
        except ProcessLookupError:  # it is gone already
            self._file = os.open(os.devnull, os.O_RDONLY)

    def kill(self) -> None:
        """End it at once."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._file, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if not select.select([self._file], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return 0


def _serve_decoding(control: socket.socket) -> None:
    forked.main(control.detach())


def _run(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    descriptors: int | None,
    stdout: "Connection[bytes, bytes]",
) -> None:
    if descriptors is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    os.dup2(stdout.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    _run_main(module, arguments, folder, environment)


def _run_on(
    module: str,
    arguments: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    streams: "Sequence[Connection[bytes, bytes]]",
) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    sys.stdin = os.fdopen(0, closefd=False)  # a process of `multiprocessing` has none
    _run_main(module, arguments, Path(folder), environment)


def _run_main(module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if {"--workers", "--admin-port"} & {*arguments}:
        _fork_server_of_forks()
    if arguments[:1] == ["serve"]:  # which may start processes that decode
        _decode_nearby()
    sys.argv = [module, *arguments]
    import_module(module).main()


def _decode_nearby() -> None:
    fork_server.launch = Nursery().launch_decoding


def _begin_forked(_server: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _decode_nearby()


def _fork_server_of_forks() -> None:
    """Give this process a server of forks that has imported what it has; workers and `/admin` come from it.

    Make it while there is one thread.
    """
    from vendor_service.run import admin  # which most tests need not import

    address = f"{util.get_temp_dir()}/forks-{secrets.token_hex(8)}"
    server: Any = forkserver._forkserver
    alive_r, alive_w = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        if (pid := os.fork()) == 0:
            os.close(alive_w)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it knows how others ended that were told to stop
            util.register_after_fork(server, _begin_forked)
            try:
                forkserver.main(listener.detach(), alive_r, [])
            finally:
                os._exit(0)
    os.close(alive_r)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, alive_w, pid
    admin._spawning = get_context("forkserver")  # type: ignore[assignment]
