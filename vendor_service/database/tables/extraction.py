"""Sketches of the inputs that accounts have sent."""

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from vendor_service.database.tables.base import Base


class Coverage(Base):
    """The buckets of a model's embedding space that the answers to an account lie in.

    `buckets` is a bitmap: bit `n % 8` of byte `n // 8` stands for bucket n. It ends with
    the last byte that is not zero.
    """

    __tablename__ = "coverage"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    model_fingerprint: Mapped[str] = mapped_column(primary_key=True)
    buckets: Mapped[bytes] = mapped_column(LargeBinary)


class SketchRow(Base):
    """A sketch of all inputs of an account to a model, of a fixed size.

    `inputs` are the smallest keyed hashes of the inputs, `moment` is the second moment of a projection of the
    answers (see `vendor_service/extraction/sketch.py`). Hashes by different keys cannot be compared; `key_id`
    tells the keys apart, and is empty where there was none.
    """

    __tablename__ = "sketches"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    model_fingerprint: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    inputs: Mapped[bytes] = mapped_column(LargeBinary)
    moment: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[int]
