"""Where to buy, what may be spent, and where bought embeddings are kept."""

import os
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, InstanceOf, SecretStr, field_validator

from client.errors import UsageError
from client.options.base import Options
from client.vendors.teacher import OWN, Teacher, prices_of
from shared.declared import Option
from shared.embeddings import Prices

DEFAULT_VENDOR = "http://127.0.0.1:8000"

_VENDOR_AND_CACHE = "The vendor and the cache"
_SPENDING = "What may be spent"


class CacheOptions(Options):
    """The cache, which keeps what was bought."""

    panel: ClassVar[str | None] = _VENDOR_AND_CACHE

    cache: Annotated[Path | None, Option(env="TUITION_CACHE")] = Field(
        default=None, description="The file of bought embeddings (default: one in your cache folder)."
    )


def _teacher(given: str | Teacher) -> str | Teacher:
    """A teacher, whose name is one."""
    if isinstance(given, str):
        try:
            Teacher(given)
        except UsageError as error:
            raise ValueError(str(error)) from error
    return given


class VendorOptions(CacheOptions):
    """Whom to ask, and where to keep what was bought."""

    teacher: Annotated[
        str | InstanceOf[Teacher],
        AfterValidator(_teacher),
        Option(env="TUITION_TEACHER", metavar="API[:MODEL]"),
    ] = Field(
        default=OWN,
        description="Whom to ask: tuition, cohere, voyage, jina, vertex, bedrock, openai (infinity-emb or "
        "vLLM), open_clip:MODEL/PRETRAINED or open_clip:FOLDER in this process, python:MODULE:NAME, or what "
        "a package adds. In Python also a `Teacher`.",
    )
    vendor: Annotated[str | None, Option(env="TUITION_VENDOR_URL", metavar="URL")] = Field(
        default=None,
        description=f"The vendor's URL (default: that of the teacher's API; Tuition's is {DEFAULT_VENDOR}).",
    )
    api_key: Annotated[SecretStr | None, Option(env="TUITION_API_KEY", hidden=True)] = Field(
        default=None, description="The API key."
    )
    api_key_file: Annotated[
        Path | None, Option(instead_of="api_key", env="TUITION_API_KEY_FILE", typed=True)
    ] = Field(
        default=None,
        description="A file with the API key (default: the key is the API's usual variable, such as "
        "TUITION_API_KEY or COHERE_API_KEY).",
    )
    price: Annotated[tuple[str, ...], Option(commas=True, metavar="image=MICROS,text=MICROS")] = Field(
        default=(),
        description="What a query costs, in millionths of the currency unit, where the vendor does not say "
        "so itself (default: the API's list price).",
    )

    @field_validator("price")
    @classmethod
    def _is_price(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        try:
            _prices(given)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return given

    @property
    def asked(self) -> Teacher:
        """The teacher."""
        return Teacher(self.teacher) if isinstance(self.teacher, str) else self.teacher

    @property
    def address(self) -> str | None:
        """The vendor's URL, as it was said; `None` for the API's own.

        TUITION_VENDOR_URL is where a Tuition vendor is, and is not asked for anything of another API.
        """
        of_environment = os.environ.get("TUITION_VENDOR_URL")
        is_typed = "vendor" in self.model_fields_set
        if self.asked.is_tuition or is_typed or self.vendor != of_environment:
            return self.vendor
        return None

    @property
    def prices(self) -> Prices | None:
        """What a query costs, as the user says; `None` where that is not said."""
        return _prices(self.price)

    def said_key(self) -> tuple[SecretStr | None, Path | None]:
        """The key and its file, where they are for this teacher: TUITION_API_KEY is sent to Tuition alone."""
        if self.asked.is_tuition:
            return self.api_key, self.api_key_file
        typed = self.model_fields_set
        return (
            self.api_key if "api_key" in typed else None,
            self.api_key_file if "api_key_file" in typed else None,
        )


def _prices(given: tuple[str, ...]) -> Prices | None:
    if not given:
        return None
    pairs = [each.partition("=") for each in given]
    if not all(micros.isdecimal() for _, _, micros in pairs):
        raise UsageError(f"write --price as image=100,text=5, and not {','.join(given)}.")
    return prices_of({kind: int(micros) for kind, _, micros in pairs})


class IsolationOptions(VendorOptions):
    """Two keys between which a wall should stand: `tuition.isolation_test`."""

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
        description="Queries that may be paid for, over all resumptions. `client distill` needs it, "
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
    """Embeddings of texts and images: `tuition.embed`."""

    panel: ClassVar[str | None] = None

    texts: Annotated[tuple[str, ...], Option(name="text")] = Field(
        default=(), description="A text, or - for one per line on stdin."
    )
    images: tuple[str | Path, ...] = Field(
        default=(),
        description="An image file, a folder, a pattern ('shots/**/*.png'), or - for paths on stdin.",
    )
    out: Annotated[Path | None, Option(one_command=True)] = Field(
        default=None, description="FILE.npy, FILE.parquet or FILE.jsonl; in Python `None` gives an array."
    )


class CanaryOptions(AgreementOptions):
    """Known inputs to ask a vendor about once more: `tuition.canary`."""

    panel: ClassVar[str | None] = None

    images: tuple[str | Path, ...] = Field(
        default=(), description="Images that were bought before: a file, a folder or a pattern."
    )
    texts: Annotated[tuple[str, ...], Option(name="text")] = Field(
        default=(), description="A text that was bought before."
    )
    count: int = Field(default=8, ge=1, le=1000, description="How many inputs to ask again, and pay for.")
