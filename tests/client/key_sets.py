"""Key sets as vendors publish them: signed by one of their keys."""

from collections.abc import Collection, Sequence

from shared.receipts import KEYS_TYPE, DatedKey, KeysClaims, KeySet, PublicKey
from vendor_service.money.signing import SigningKey


def key_set(
    signer: SigningKey,
    keys: Sequence[PublicKey] | None = None,
    *,
    withdrawn: Collection[PublicKey] = (),
    iat: int = 1_800_000_000,
    iss: str | None = None,
    vendor: str | None = None,
) -> KeySet:
    """The set of these keys, or of the signer's alone; those `withdrawn` are in the signed part alone."""
    keys = [signer.public] if keys is None else keys
    dated = [DatedKey(x=key.x, kid=key.kid, since=1_700_000_000) for key in keys]
    dated += [DatedKey(x=key.x, kid=key.kid, since=1, withdrawn=iat) for key in withdrawn]
    signed = signer.sign(KEYS_TYPE, KeysClaims(iat=iat, keys=dated, iss=iss, vendor=vendor))
    return KeySet(keys=list(keys), signed=signed)
