"""The vendor beside others that serve a CLIP: the same load at a ViT-B-32 of each, on the same machine.

    make bench-peers

The others are infinity-emb, and a server of FastAPI and open_clip as it is written in an afternoon
(bare_server.py). Each is started at its defaults, and again at what it does best here; weights have the same
shapes and are random. All of them stand ready, and are asked in turns: one at a time has the machine for
itself, and no slower minute of the machine is of one of them alone. A request is one photograph (480 x 640,
about 40 KB), a text that was never asked before, or one of a hundred class texts, which are asked again and
again. Only the vendor keeps accounts and charges for every query. Vendor and infinity-emb are asked by
OpenAI's protocol; at its best the vendor is asked by its own, as the bare server is.

In the end of a round, 16 connections ask for photographs, in turns with and without another one that keeps
sending a broken image; what it sends is made beforehand, and takes nothing of the processors.
"""

import argparse
import base64
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal

import httpx

from benchmarks import load
from benchmarks.barrage import read_answer
from benchmarks.vendor import photographs, save_model
from benchmarks.watching import session_bytes
from tests.support.vendor_process import VendorProcess, int8_options, wait_until

BIN = Path(os.environ.get("INFINITY_BIN", ".venv-infinity/bin"))
NAME = "vit-b-32"
CONNECTIONS = (1, 16, 64)
# A hundred class texts, each asked for again and again, as classes are.
TEXTS = [f"a photo of {number} cats" for number in range(100)]
NEW_TEXTS = 4000  # in a measurement, which asks for fewer
# A server that has stood idle has its pages brought back, and its threads awake, before it is measured.
WARM_SECONDS = 2.0
TURNS = 3  # with and without broken images
BROKEN = b"\xff\xd8\xff\xe0 and no more of a JPEG"


Asked = Literal["images", "new texts", "class texts"]
ASKED: tuple[Asked, ...] = ("images", "new texts", "class texts")


@dataclass(frozen=True)
class Served:
    """A server that answers: the leader of its session, and requests for it, one of a broken image."""

    pid: int
    port: int
    images: Sequence[bytes]
    ask: Callable[[Sequence[str]], list[bytes]]  # makes a request of each text
    broken: bytes


@dataclass(frozen=True)
class Measured:
    """What a server came to in one round; loads by what was asked for and by number of connections.

    Attributes:
        resident: bytes of its processes, after the load.
        loads: of single photographs, new texts and class texts.
        alone: of photographs over 16 connections, in turns with those that came beside broken ones.
        beside: of the latter; both are `None` if any of them failed.
        told: what the broken ones were answered with.
    """

    resident: int
    loads: dict[tuple[Asked, int], load.Load]
    alone: load.Load | None
    beside: load.Load | None
    told: str


def main() -> None:
    """Measure, and print the tables of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", help="servers whose name begins so")
    parser.add_argument("--asked", nargs="+", choices=ASKED, default=ASKED, help="for what (default: all)")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        save_model(folder / NAME)
        files = photographs(480, 640, 20)
        (folder / "calibration").mkdir()
        for number, each in enumerate(files):
            (folder / "calibration" / f"{number}.jpg").write_bytes(each)
        sides = servers(folder, files)
        names = [each for each in sides if options.only is None or each.startswith(tuple(options.only))]
        served: dict[str, Served] = {}
        ready: dict[str, float] = {}
        for name in names:
            began = time.perf_counter()
            served[name] = stack.enter_context(sides[name]())
            ready[name] = time.perf_counter() - began
            _warm(served[name])
        found: dict[str, list[Measured]] = {name: [] for name in names}
        for number in range(options.rounds):
            for name, came_to in one_round(served, options.asked, number, options.seconds).items():
                found[name].append(came_to)
                print(f"{name}: {came_to}", file=sys.stderr, flush=True)
    print_tables(found, options.asked, ready)


def servers(folder: Path, files: Sequence[bytes]) -> dict[str, Callable[[], AbstractContextManager[Served]]]:
    """How to start each of them, by name."""
    sides: dict[str, Callable[[], AbstractContextManager[Served]]] = {
        "vendor, defaults": partial(vendor, folder, files, own_protocol=False),
        "vendor, int8, own protocol": partial(
            vendor, folder, files,
            *int8_options(folder, folder / "calibration", f"local-dir:{folder / NAME}"),
            own_protocol=True,
        ),
        "FastAPI and open_clip, in the loop": partial(bare, folder, files, threaded=False),
        "FastAPI and open_clip, in threads": partial(bare, folder, files, threaded=True),
    }  # fmt: skip
    if (BIN / "infinity_emb").exists():
        subprocess.run(
            [BIN / "python", "-m", "benchmarks.peer_model", str(folder / "peer")],
            check=True,
            env=_quiet(),
        )
        sides["infinity-emb, defaults"] = partial(infinity, folder, files)
        sides["infinity-emb, float32, not compiled"] = partial(
            infinity, folder, files, "--dtype", "float32", "--no-compile", "--no-bettertransformer"
        )
    return sides


def one_round(
    served: dict[str, Served], wanted: Sequence[Asked], number: int, seconds: float
) -> dict[str, Measured]:
    """Ask all servers in turns, for one thing after another."""
    loads: dict[str, dict[tuple[Asked, int], load.Load]] = {name: {} for name in served}
    for asked in wanted:
        for connections in CONNECTIONS:
            for name, server in served.items():
                requests = _requests(server, asked, f"{number} {connections}")
                known = [each for (of, _), each in loads[name].items() if of == asked]
                rate = max((each.answers_a_second for each in known), default=math.inf)
                # As long as it takes to have several answers on each connection.
                long = max(seconds, 4 * connections / rate)
                _warm(server)
                loads[name][asked, connections] = load.run(
                    server.port, requests, connections, long, apart=asked == "new texts"
                )
    return {name: _ended(server, loads[name], seconds) for name, server in served.items()}


def _warm(server: Served) -> None:
    with suppress(RuntimeError):  # it took all that time for its first answer
        load.run(server.port, server.images, 4, WARM_SECONDS)


def _requests(server: Served, asked: Asked, when: str) -> Sequence[bytes]:
    if asked == "images":
        return server.images
    return server.ask(TEXTS if asked == "class texts" else [f"{when}: {each}" for each in range(NEW_TEXTS)])


def _ended(server: Served, loads: dict[tuple[Asked, int], load.Load], seconds: float) -> Measured:
    """What the round came to, once broken images have been sent as well."""
    resident = session_bytes(server.pid)
    told: Counter[str] = Counter()
    _warm(server)
    pairs: list[tuple[load.Load, load.Load]] = []
    with suppress(RuntimeError):  # a good one was not answered
        first = load.run(server.port, server.images, 16, seconds)
        # As long as it takes to have several answers on each connection.
        long = max(seconds, 4 * 16 / first.answers_a_second)
        while len(pairs) < TURNS:
            alone = load.run(server.port, server.images, 16, long)
            with nuisance(server, told):
                pairs.append((alone, load.run(server.port, server.images, 16, long)))
    if len(pairs) < TURNS:
        return Measured(resident, loads, None, None, ", ".join(told))
    pairs.sort(key=lambda pair: pair[1].answers_a_second / pair[0].answers_a_second)
    return Measured(resident, loads, *pairs[TURNS // 2], ", ".join(told))


@contextmanager
def nuisance(server: Served, told: Counter[str]) -> Iterator[None]:
    """Somebody who sends a broken image, four times a second, while this is a context."""
    over = threading.Event()
    thread = threading.Thread(target=_send_broken, args=(server, told, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _send_broken(server: Served, told: Counter[str], over: threading.Event) -> None:
    while not over.wait(0.25):
        try:
            with (
                socket.create_connection(("127.0.0.1", server.port), 60) as connection,
                connection.makefile("rb") as answers,
            ):
                connection.sendall(server.broken)
                told[read_answer(answers)[0]] += 1
        except OSError as error:
            told[type(error).__name__] += 1


def print_tables(found: dict[str, list[Measured]], wanted: Sequence[Asked], ready: dict[str, float]) -> None:
    """What the rounds came to, in the median."""
    print("| server | connections | " + " | ".join(f"{each}/s | p50 ms | p99 ms" for each in wanted) + " |")
    print("|---|---" + "|---" * 3 * len(wanted) + "|")
    for name, rounds in found.items():
        for number in CONNECTIONS:
            cells = []
            for asked in wanted:
                loads = [each.loads[asked, number] for each in rounds]
                rate = median(each.answers_a_second for each in loads)
                cells += [f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"]
                cells += [f"{1000 * median(getattr(each, p) for each in loads):.0f}" for p in ("p50", "p99")]
            print(f"| {name} | {number} | {' | '.join(cells)} |")
    print(
        "\n| server | ready after s | memory MB | a broken image is told | images/s beside | share | p99 s |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, rounds in found.items():
        beside = [each.beside for each in rounds if each.beside is not None]
        cells = [f"{ready[name]:.1f}"]
        cells += [f"{median(each.resident for each in rounds) / 1e6:.0f}", rounds[-1].told]
        if len(beside) == len(rounds):
            cells += [f"{median(each.answers_a_second for each in beside):.1f}"]
            shares = [
                each.beside.answers_a_second / each.alone.answers_a_second
                for each in rounds
                if each.beside is not None and each.alone is not None
            ]
            cells += [f"{median(shares):.2f}", f"{median(each.p99 for each in beside):.2f}"]
        else:
            cells += ["others fail", "", ""]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


@contextmanager
def vendor(folder: Path, files: Sequence[bytes], *options: str, own_protocol: bool) -> Iterator[Served]:
    """`vendor serve`, with an account that is charged."""
    served = options if "--models" in options else ("--model", f"local-dir:{folder / NAME}", *options)
    with (
        TemporaryDirectory() as books,
        VendorProcess(Path(books), *served, threads=os.cpu_count() or 1) as process,
    ):
        key, port = process.create_key(), int(process.url.rpartition(":")[2])
        if own_protocol:
            images = [load.embed(key, *load.form([each])) for each in files]
            broken = load.embed(key, *load.form([BROKEN]))
            yield Served(process.pid, port, images, partial(_own_requests, key), broken)
        else:
            yield Served(process.pid, port, *openai_requests(key, files))


def _own_requests(key: str, texts: Sequence[str]) -> list[bytes]:
    asked = [json.dumps({"inputs": [{"text": each}]}).encode() for each in texts]
    return [load.embed(key, each, "application/json") for each in asked]


@contextmanager
def infinity(folder: Path, files: Sequence[bytes], *options: str) -> Iterator[Served]:
    """infinity-emb with the same architecture."""
    port = _free_port()
    command: list[str | Path] = [
        *(BIN / "infinity_emb", "v2", "--model-id", folder / "peer", "--served-model-name", NAME),
        *("--engine", "torch", "--device", "cpu", "--url-prefix", "/v1"),
        *("--host", "127.0.0.1", "--port", str(port), *options),
    ]
    with _started(
        command, folder / f"peer-{port}.log", f"http://127.0.0.1:{port}/v1/models", _quiet()
    ) as pid:
        yield Served(pid, port, *openai_requests("none", files))


@contextmanager
def bare(folder: Path, files: Sequence[bytes], *, threaded: bool) -> Iterator[Served]:
    """FastAPI and open_clip."""
    port = _free_port()
    code = f"from benchmarks.bare_server import serve; serve({str(folder / NAME)!r}, {port}, {threaded=!r})"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    with _started(command, folder / f"bare-{port}.log", f"http://127.0.0.1:{port}/docs", environment) as pid:
        forms = [load.form([each], "files") for each in files]
        images = [load.request("/images", body, content_type=kind) for body, kind in forms]

        def ask(texts: Sequence[str]) -> list[bytes]:
            bodies = [json.dumps([each]).encode() for each in texts]
            return [load.request("/texts", body, content_type="application/json") for body in bodies]

        body, kind = load.form([BROKEN], "files")
        yield Served(pid, port, images, ask, load.request("/images", body, content_type=kind))


def openai_requests(
    key: str, files: Sequence[bytes]
) -> tuple[list[bytes], Callable[[Sequence[str]], list[bytes]], bytes]:
    """Photographs, what asks for texts, and a broken image, as vendor and infinity-emb understand them."""
    path = "/v1/embeddings"

    def body(modality: str, asked: str) -> bytes:
        told = {"model": NAME, "modality": modality, "encoding_format": "base64", "input": [asked]}
        return json.dumps(told).encode()

    def uri(file: bytes) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"

    def whole(sent: bytes) -> bytes:
        return load.request(path, sent, authorization=f"Bearer {key}", content_type="application/json")

    return (
        [whole(body("image", uri(each))) for each in files],
        lambda texts: [whole(body("text", each)) for each in texts],
        whole(body("image", uri(BROKEN))),
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _quiet() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return os.environ | quiet


@contextmanager
def _started(
    command: Sequence[str | Path], log_file: Path, url: str, environment: dict[str, str]
) -> Iterator[int]:
    with log_file.open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        assert server.poll() is None, log_file.read_text()
        with suppress(httpx.HTTPError):
            return httpx.get(url).is_success
        return False

    try:
        wait_until(answers, seconds=300)
        yield server.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


if __name__ == "__main__":
    main()
