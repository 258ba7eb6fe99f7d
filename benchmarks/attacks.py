"""Attacks on a vendor by one account, or by nobody, each as bad as it can be at the rate that it states.

A vendor's answer is no failure of an attack: many of these are allowed, and are paid for. What counts is what
somebody else notices.
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks import load
from benchmarks.barrage import Attacker, Deed
from benchmarks.customers import icons
from tests.vendor_service.hostile_bodies import BODIES, half_sent
from tests.vendor_service.hostile_images import (
    animated_webp,
    jpeg_of_scans,
    large_progressive_jpeg,
    large_webp,
    png_of_texts,
    png_of_zeros,
    png_with_profile_bomb,
    png_with_text_bomb,
    webp_with_profile,
)

_MIB = 2**20
_LARGEST = 32 * _MIB - 65_536  # bytes of a body that a vendor takes, and a little room
_HONEST_MOST = 16  # connections
_JSON = "application/json"


@dataclass(frozen=True)
class Attack:
    """What is done, on how many connections, and how long a history and how many keys its account has."""

    name: str
    what: str
    connections: int
    deed: Deed
    entries: int = 0
    keys: int = 1

    @property
    def peer_connections(self) -> int:
        """On how many connections the honest customer asks whom this attack is compared with."""
        return min(self.connections, _HONEST_MOST)


ATTACKS: dict[str, Attack] = {}


def _attack(connections: int, entries: int = 0, keys: int = 1) -> Callable[[Deed], Deed]:
    def register(deed: Deed) -> Deed:
        name = getattr(deed, "__name__", "")
        what = (deed.__doc__ or "").partition("\n")[0].rstrip(".")
        ATTACKS[name] = Attack(name, what, connections, deed, entries, keys)
        return deed

    return register


def honest(connections: int) -> Attack:
    """The yardstick: who asks 32 images or texts at a time, on so many connections, as fast as answered."""
    what = f"an honest customer on {connections} connection{'s' * (connections > 1)}"
    return Attack("honest", what, connections, partial(_ask_honestly, connections))


def _ask_honestly(connections: int, attacker: Attacker) -> None:
    files = icons(256)
    requests = []
    for start in range(0, len(files), 32):
        requests.append(load.embed(attacker.keys.good, *load.form(files[start : start + 32])))
        texts = [{"text": f"a drawing of number {start + number}"} for number in range(32)]
        requests.append(load.embed(attacker.keys.good, json.dumps({"inputs": texts}).encode(), _JSON))
    attacker.repeat(requests, connections)


@_attack(8)
def giant_bodies(attacker: Attacker) -> None:
    """Bodies of 4 GB without a key, on paths that are and that are not; 100 MB a second."""
    rest = "HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: 4000000000\r\n\r\n"
    paths = ("/v1/estimate", "/nowhere", "/embed", "/v1/account")
    heads = [f"POST {path} {rest}".encode() for path in paths]
    attacker.pour(heads, 8, bytes_per_second=100e6)


@_attack(3000)
def half_bodies(attacker: Attacker) -> None:
    """3,000 bodies without a key that stop half-way."""
    paths = ("/v1/estimate", "/nowhere", "/embed", "/v1/embeddings")
    attacker.besiege([half_sent(path) for path in paths], 10_000, 3000)


@_attack(200)
def slow_bodies(attacker: Attacker) -> None:
    """200 bodies with a key, a byte every half second."""
    body = json.dumps({"inputs": [{"text": "a cat " * 1000}]}).encode()
    paths = ("/embed", "/v1/embeddings", "/v1/estimate")
    requests = [load.embed(attacker.keys.good, body, _JSON, path) for path in paths]
    attacker.besiege(requests, 300, 200, drip=1)


@_attack(64)
def slow_readers(attacker: Attacker) -> None:
    """64 answers of 256 embeddings as text, of which a kilobyte is read every half second."""
    body = json.dumps({"inputs": [{"text": f"number {number}"} for number in range(256)]}).encode()
    asked = load.request("/embed", body, authorization=f"Bearer {attacker.keys.good}", content_type=_JSON)
    attacker.besiege([asked], len(asked), 64, sip=1024)


@_attack(4)
def many_scans(attacker: Attacker) -> None:
    """Progressive JPEGs of 1,000 scans."""
    _send_images(attacker, 4, jpeg_of_scans(1000, side=4000))


@_attack(4)
def large_jpegs(attacker: Attacker) -> None:
    """Progressive JPEGs of 49 megapixels, of 60 scans and of four colours."""
    _send_images(attacker, 4, jpeg_of_scans(60, side=7000), large_progressive_jpeg(mode="CMYK"))


@_attack(4)
def flat_pngs(attacker: Attacker) -> None:
    """PNGs of 49 megapixels of one colour, 16 a request."""
    _send_images(attacker, 16, png_of_zeros(7000, 7000, colour=6))


@_attack(4)
def interlaced_pngs(attacker: Attacker) -> None:
    """Interlaced PNGs of 49 megapixels and 16 bits, 16 a request."""
    _send_images(attacker, 16, png_of_zeros(7000, 7000, bits=16, interlaced=True))


@_attack(4)
def flat_webps(attacker: Attacker) -> None:
    """WebPs of 49 megapixels in a few bytes, 256 a request."""
    _send_images(attacker, 256, large_webp(lossless=True))


@_attack(4)
def animated_webps(attacker: Attacker) -> None:
    """WebPs of 100 frames, 64 a request."""
    _send_images(attacker, 64, animated_webp())


@_attack(4)
def heavy_chunks(attacker: Attacker) -> None:
    """PNGs of a pixel whose comment or profile unpacks to 80 MB, 256 a request."""
    _send_images(attacker, 256, png_with_text_bomb(), png_with_profile_bomb())


@_attack(4)
def many_chunks(attacker: Attacker) -> None:
    """PNGs of a pixel with 500,000 comments, and WebPs with profiles of 10 MB."""
    _send_images(attacker, 2, png_of_texts(), webp_with_profile())


@_attack(4)
def endless_words(attacker: Attacker) -> None:
    """Texts of 10,000 letters without a space, hung up on after 0.3 s."""
    attacker.hang_up([_texts(attacker, _endless_word(number)) for number in range(64)], 4, [0.3])


@_attack(4)
def packed_words(attacker: Attacker) -> None:
    """256 texts of 10,000 letters without a space in a request."""
    words = [_endless_word(number) for number in range(512)]
    attacker.repeat([_texts(attacker, *words[:256]), _texts(attacker, *words[256:])], 4)


@_attack(8)
def unknown_keys(attacker: Attacker) -> None:
    """32 MiB of JSON keys that no request has; 4 requests a second."""
    _send_bodies(attacker, "unknown keys", "unknown keys of an input", "the same key")


@_attack(8)
def empty_texts(attacker: Attacker) -> None:
    """Eleven million empty texts, objects and numbers in 32 MiB of JSON; 4 requests a second."""
    _send_bodies(attacker, "empty texts", "empty objects", "token ids")


@_attack(8)
def nested_lists(attacker: Attacker) -> None:
    """32 MiB of JSON in JSON, of digits and of escaped letters; 4 requests a second."""
    _send_bodies(attacker, "nesting", "nested objects", "digits", "surrogates", "one wide letter")


@_attack(8)
def tiny_parts(attacker: Attacker) -> None:
    """Forms of half a million empty fields in 32 MiB; 4 requests a second."""
    _send_bodies(attacker, "empty parts", "fields", "headers of a part")


@_attack(8)
def boundary_noise(attacker: Attacker) -> None:
    """Forms of 32 MiB of what is nearly their boundary; 4 requests a second."""
    _send_bodies(attacker, "beginnings of boundaries", "boundaries that are none", "padding")


@_attack(8)
def endless_accepts(attacker: Attacker) -> None:
    """Requests whose Accept header is 60,000 semicolons."""
    head = {"authorization": f"Bearer {attacker.keys.good}", "content_type": _JSON, "accept": ";" * 60_000}
    attacker.repeat([load.request("/embed", b"", **head)], 8)


@_attack(8)
def without_quota(attacker: Attacker) -> None:
    """Bombs of 32 MiB by an account whose quota is 0; 2 requests a second."""
    attacker.repeat([_full_body(attacker.keys.poor)], 8, per_second=2)


@_attack(8)
def without_key(attacker: Attacker) -> None:
    """Bombs of 32 MiB with a key that does not exist; 2 requests a second."""
    attacker.repeat([_full_body("tk_0123456789abcdef_" + "0" * 48)], 8, per_second=2)


@_attack(8)
def suspended(attacker: Attacker) -> None:
    """Bombs of 32 MiB by a suspended account; 2 requests a second."""
    attacker.repeat([_full_body(attacker.keys.suspended)], 8, per_second=2)


@_attack(8, entries=400_000)
def long_history(attacker: Attacker) -> None:
    """Invoices, usage and ledger pages of 400,000 entries, 8 at once."""
    month = time.strftime("%Y-%m", time.gmtime())
    paths = (f"/v1/invoices/{month}", "/v1/usage?group_by=day", "/v1/ledger?limit=1000&after=200000")
    attacker.repeat([_get(path, attacker.keys.good) for path in paths], 8)


@_attack(100, keys=1000)
def free_reads(attacker: Attacker) -> None:
    """Lists of 1,000 keys, and other questions that are free, 100 at once."""
    paths = ("/v1/keys", "/v1/keys?limit=1", "/v1/account", "/v1/projects")
    attacker.repeat([_get(path, attacker.keys.good) for path in paths], 100)


@_attack(8)
def replays(attacker: Attacker) -> None:
    """One paid request of 256 images, again and again under its idempotency key."""
    key = secrets.token_hex(16)
    attacker.repeat([load.embed(attacker.keys.good, *load.form(icons(256)), idempotency_key=key)], 8)


@_attack(16)
def big_batches(attacker: Attacker) -> None:
    """Requests of 256 images on 16 connections."""
    attacker.repeat([load.embed(attacker.keys.good, *load.form(icons(256)))], 16)


@_attack(8)
def hang_ups(attacker: Attacker) -> None:
    """Requests of 256 images, hung up on after 0.05 to 0.8 s, while they are decoded or encoded."""
    asked = load.embed(attacker.keys.good, *load.form(icons(256)))
    attacker.hang_up([asked], 8, [0.05, 0.1, 0.2, 0.4, 0.8])


@_attack(16)
def churn(attacker: Attacker) -> None:
    """100 new connections a second, each for one small question."""
    attacker.knock([_get("/v1/account", attacker.keys.good, connection="close")], 16, per_second=100)


@_attack(8)
def key_conflicts(attacker: Attacker) -> None:
    """Different requests of 32 images under one idempotency key, on 8 connections."""
    files, key = icons(256), secrets.token_hex(16)
    bodies = [load.form(files[start : start + 32]) for start in range(0, 256, 32)]
    attacker.repeat([load.embed(attacker.keys.good, *body, idempotency_key=key) for body in bodies], 8)


def _send_images(attacker: Attacker, count: int, *files: bytes) -> None:
    attacker.repeat([load.embed(attacker.keys.good, *load.form([file] * count)) for file in files], 4)


def _send_bodies(attacker: Attacker, *names: str) -> None:
    requests = []
    for path, content_type, make in (BODIES[name] for name in names):
        requests.append(load.embed(attacker.keys.good, make(_LARGEST), content_type, path))
    attacker.repeat(requests, 8, per_second=4)


def _full_body(key: str) -> bytes:
    """Eight bombs in a body of 32 MiB: decoders leave alone what follows the end of an image."""
    bomb = png_of_zeros(7000, 7000)
    return load.embed(key, *load.form([bomb + bytes(_LARGEST // 8 - 1024 - len(bomb))] * 8))


def _endless_word(number: int) -> str:
    """10,000 letters without a space, others for each number."""
    word = f"{number}qzjxkvbpygfwmucldrhsnioate"
    return (word * (10_000 // len(word) + 1))[:10_000]


def _texts(attacker: Attacker, *texts: str) -> bytes:
    body = json.dumps({"inputs": [{"text": text} for text in texts]}).encode()
    return load.embed(attacker.keys.good, body, _JSON)


def _get(path: str, key: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: bench", f"authorization: Bearer {key}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
