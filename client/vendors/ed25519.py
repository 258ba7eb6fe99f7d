"""Ed25519 (RFC 8032), read so strictly that a right signature binds one key to one message.

RFC 8032 lets verifiers differ, and weak keys pass with many. A key of small order is one under which anybody
can sign anything: by the identity `R || 0` is right of every message, so its owner can deny all of them
(Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs", 2020, https://eprint.iacr.org/2020/1244).

OpenSSL, which does the arithmetic, wants S < L, compares R byte by byte with what it must be, and does not
multiply by the cofactor. It takes points of small order and keys with y >= p: these are refused here.
"""

_P = 2**255 - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y of the eight points whose order divides the cofactor. An x of 0 with a sign, the other spelling that
# is not canonical, occurs with y = 1 and y = -1 alone.
_SMALL_ORDER = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


def is_strong(point: bytes) -> bool:
    """Whether 32 bytes can be the one encoding of a point whose order is large; not whether they are."""
    y = int.from_bytes(point, "little") & (2**255 - 1)
    return len(point) == 32 and y < _P and y not in _SMALL_ORDER


def is_signed(message: bytes, signature: bytes, public: bytes) -> bool:
    """Whether a signature of a message is right by a public key, both being canonical and strong."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not (is_strong(public) and is_strong(signature[:32])):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):  # ValueError: no point at all
        return False
    return True
