"""Where to buy, what may be spent, and where bought embeddings are kept."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr

from client.options.base import Options
from client.vendors.registry import ProtocolName
from shared.declared import Option

DEFAULT_VENDOR = "http://127.0.0.1:8000"

_VENDOR_AND_CACHE = "The vendor and the cache"
_SPENDING = "What may be spent"


class CacheOptions(Options):
    """The cache, which keeps what was bought."""

    panel: ClassVar[str | None] = _VENDOR_AND_CACHE

    cache: Annotated[Path | None, Option(env="TUITION_CACHE")] = Field(
        default=None, description="The file of bought embeddings (default: one in your cache folder)."
    )


class VendorOptions(CacheOptions):
    """Where to buy, and where to keep what was bought."""

    vendor: Annotated[str, Option(env="TUITION_VENDOR_URL")] = Field(
        default=DEFAULT_VENDOR, description="The vendor's URL."
    )
    api_key: Annotated[SecretStr | None, Option(env="TUITION_API_KEY", hidden=True)] = Field(
        default=None, description="The API key."
    )
    api_key_file: Annotated[
        Path | None, Option(instead_of="api_key", env="TUITION_API_KEY_FILE", typed=True)
    ] = Field(default=None, description="A file with the API key (default: the key is TUITION_API_KEY).")
    protocol: Annotated[ProtocolName, Option(env="TUITION_PROTOCOL")] = Field(
        default="tuition",
        description="The vendor's protocol: Tuition's own, or OpenAI's with images as infinity-emb or "
        "Jina does.",
    )
    model: str | None = Field(
        default=None, description="Which of the vendor's models to ask (default: the vendor's own default)."
    )


class IsolationOptions(VendorOptions):
    """Two keys between which a wall should stand: `client.isolation_test`."""

    panel: ClassVar[str | None] = None

    other_key_file: Annotated[Path, Option(typed=True, metavar="FILE")] = Field(
        description="A file with an API key of another project, or of another account."
    )


class AgreementOptions(VendorOptions):
    """Whether a large purchase is agreed to beforehand."""

    panel: ClassVar[str | None] = _SPENDING

    yes: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Do not ask before a purchase of more than five units."
    )

    @property
    def agreed(self) -> bool:
        """Whether a purchase of more than five units is agreed to beforehand."""
        return self.yes


class PurchaseOptions(AgreementOptions):
    """The limits of spending."""

    max_spend_micros: Annotated[int | None, Option(name="max_spend", metavar="MICROS")] = Field(
        default=None,
        ge=0,
        le=10**15,
        description="Money that may be paid, over all resumptions, in millionths of the vendor's currency "
        "unit.",
    )

    @property
    def agreed(self) -> bool:
        """Whether a large purchase is agreed to. An explicit cap agrees too; one of tuition.toml does not."""
        return self.yes or ("max_spend_micros" in self.model_fields_set and self.max_spend_micros is not None)


class BulkOptions(PurchaseOptions):
    """Whether to buy by the vendor's bulk jobs, which take their time and cost less."""

    budget: int | None = Field(
        default=None,
        ge=0,
        le=10**12,
        description="Queries that may be newly paid for, over all resumptions. `client distill` needs it, "
        "unless its method buys nothing; elsewhere none is no limit.",
    )
    batch: bool = Field(
        default=False, description="Buy by bulk jobs: within a day, and cheaper (`client models`)."
    )
    wait: bool = Field(
        default=True,
        description="Whether to wait for bulk jobs; if not, the same command fetches them later.",
    )


class EmbedOptions(BulkOptions):
    """Embeddings of texts and images: `client.embed`."""

    panel: ClassVar[str | None] = None

    texts: Annotated[tuple[str, ...], Option(name="text")] = Field(
        default=(), description="A text, or - for one a line on stdin."
    )
    images: tuple[str | Path, ...] = Field(
        default=(),
        description="An image file, a folder, a pattern ('shots/**/*.png'), or - for paths on stdin.",
    )
    out: Annotated[Path | None, Option(one_command=True)] = Field(
        default=None, description="FILE.npy, FILE.parquet or FILE.jsonl; in Python `None` gives an array."
    )


class CanaryOptions(AgreementOptions):
    """Known inputs to ask a vendor about once more: `client.canary`."""

    panel: ClassVar[str | None] = None

    images: tuple[str | Path, ...] = Field(
        default=(), description="Images that were bought before: a file, a folder or a pattern."
    )
    texts: Annotated[tuple[str, ...], Option(name="text")] = Field(
        default=(), description="A text that was bought before."
    )
    count: int = Field(default=8, ge=1, le=1000, description="How many inputs to ask again, and pay for.")
