"""The options of a finished student: to predict, to be measured, exported and served, and to ask a vendor."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from client.options.base import Options
from client.options.training import DataOptions, DeviceOptions
from client.options.vendor import AgreementOptions
from shared.declared import Option
from shared.hosts import is_loopback

Period = Literal["day", "month", "total"]
LogFormat = Literal["text", "json"]

MOST_SAMPLES = 24  # on a page


class RejectOptions(Options):
    """When an image is taken to show none of the classes."""

    reject: Annotated[float | None, Option(safe=True)] = Field(
        default=None,
        ge=0.01,
        le=0.5,
        description=(
            "Answer 'none of these' about images that seem to show no class, at this rate of false "
            "rejects on the hold-outs, such as 0.05 (default: always name a class)."
        ),
    )


class AskOptions(AgreementOptions):
    """About which images a student's vendor is asked, and what that may cost: `Student.predict`."""

    panel: ClassVar[str | None] = "Asking the vendor"

    vendor: Annotated[str | None, Option(name="ask_vendor", env="TUITION_VENDOR_URL", metavar="URL")] = Field(
        default=None,
        description=(
            "Ask this vendor about the images of which the student is least sure, by its URL or as "
            "`teacher` names it, such as cohere:embed-v4.0 (default: ask nobody)."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _is_named(cls, given: Any) -> Any:  # noqa: ANN401 (whatever was given)
        """A vendor that is no URL is a teacher."""
        vendor = given.get("vendor") if isinstance(given, dict) else None
        if not isinstance(vendor, str) or "://" in vendor:
            return given
        return {**{name: value for name, value in given.items() if name != "vendor"}, "teacher": vendor}

    share: Annotated[float, Option(name="ask_share")] = Field(
        default=0.2, ge=0, le=1, description="Ask about this share of the images, the least sure first."
    )
    budget: Annotated[int | None, Option(name="ask_budget")] = Field(
        default=None,
        ge=0,
        le=10**12,
        description="Pay for at most this many queries in a period, by all that use this cache "
        "(default: no limit; `client serve` needs one).",
    )
    period: Annotated[Period, Option(name="ask_period")] = Field(
        default="month", description="When the budget is refilled; days and months are in UTC."
    )
    keep: Annotated[Path | None, Option(metavar="DIR")] = Field(
        default=None,
        description="Keep the images that the vendor answered about, for the next student (`client "
        "distill --from RUN --adapt DIR --budget N`); `client cache forget DIR` deletes them.",
    )
    keep_at_most: int = Field(
        default=10_000, ge=1, le=10**7, description="Keep at most this many images; the oldest are deleted."
    )


class PredictOptions(RejectOptions):
    """How `Student.predict` answers."""

    top: Annotated[int, Option(also=("top_k",), safe=True)] = Field(
        default=5, ge=1, description="How many classes to name."
    )
    ask: Annotated[AskOptions | None, Option(needs="vendor")] = Field(
        default=None, description="About which images to ask which vendor; `None` for none."
    )


class ServeOptions(RejectOptions):
    """How a student is served: `tuition.serve`."""

    host: str = Field(default="127.0.0.1", description="The address to listen on; 0.0.0.0 for all.")
    port: int = Field(default=8080, ge=0, le=65_535, description="The port; 0 takes a free one.")
    api_keys: Path | None = Field(
        default=None,
        description="File of callers' keys: one line each, with a name and a SHA-256 (default: everybody may "
        "ask).",
    )
    allow_host: tuple[str, ...] = Field(
        default=(),
        description="A name of this server, as a proxy before it passes on; may be given several times "
        "(default: addresses and names without a dot; where keys are needed, any).",
    )
    threads: Annotated[int | None, Option(safe=True)] = Field(
        default=None,
        ge=1,
        le=1024,
        description=(
            "How many batches to compute at a time, each on its own thread (default: one per processor)."
        ),
    )
    log_format: Annotated[LogFormat, Option(safe=True)] = Field(
        default="text", description="How to log to standard error."
    )
    ask: Annotated[AskOptions | None, Option(needs="vendor")] = Field(
        default=None,
        description="Whom to ask where the student is not sure, within a budget; `None` for nobody.",
    )
    # A request may take 60 seconds in all, and 28 where the server is to stop.
    ask_seconds: float = Field(
        default=2.0,
        ge=0.01,
        le=25,
        description="Seconds that a caller waits for the vendor; then the student answers.",
    )

    @model_validator(mode="after")
    def _is_limited(self) -> Self:
        if self.ask is not None and self.ask.budget is None:
            raise ValueError(
                "A server asks for as long as it runs: say with --ask-budget what it may pay for."
            )
        if self.ask is not None and self.api_keys is None and not is_loopback(self.host):
            raise ValueError(
                f"Anybody who reaches {self.host} would spend the --ask-budget: say with --api-keys who may "
                "ask, or listen on 127.0.0.1."
            )
        return self


class EvaluateOptions(DataOptions, DeviceOptions):
    """On which images a student is measured."""

    domains: Annotated[tuple[str, ...], Option(name="domain", safe=True)] = Field(
        default=(), description="Only these domains (default: all)."
    )


class ExportOptions(RejectOptions):
    """How a student is written as a file, or as a page: `tuition.export`."""

    int8: Annotated[bool, Option(safe=True)] = Field(
        default=False,
        description="Write ONNX in eight bits, a quarter of the size; takes a run's directory, and its "
        "images.",
    )
    allow_loss: Annotated[float, Option(safe=True)] = Field(
        default=1.0, ge=0, le=100, description="Points of accuracy that --int8 may lose before it is refused."
    )
    samples: int = Field(
        default=0,
        ge=0,
        le=MOST_SAMPLES,
        description="Put so many of the images that a run was tested on onto its page, to try it with: they "
        "are published with it.",
    )
