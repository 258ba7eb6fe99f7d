"""The options of each function, with the names, the meaning and the defaults of the command line's.

A value that an option does not take is refused by pydantic's `ValidationError`, before anything is done.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from client.api.defaults import DEFAULT_STUDENT, DEFAULT_VENDOR
from client.learning.recipe import Recipe, RecipeName, Variant
from client.purchase.selection import SelectionStrategy
from client.vendors.registry import ProtocolName

Queries = Annotated[int, Field(ge=0, le=10**12)]
Micros = Annotated[int, Field(ge=0, le=10**15)]
ImageSize = Annotated[int, Field(ge=16, le=1024)]
Steps = Annotated[int, Field(ge=1, le=1_000_000)]


def _vendor() -> str:
    return os.environ.get("TUITION_VENDOR_URL", DEFAULT_VENDOR)


def _protocol() -> ProtocolName:
    return os.environ.get("TUITION_PROTOCOL", "tuition")  # pydantic checks that it is one


def _cache() -> Path | None:
    named = os.environ.get("TUITION_CACHE")
    return Path(named) if named else None


class VendorOptions(BaseModel):
    """Where to buy, and where to keep what was bought.

    The API key is read from `api_key_file`, or else from the environment variable TUITION_API_KEY.

    Attributes:
        vendor: the vendor's URL; by default TUITION_VENDOR_URL, or else the vendor of this machine.
        protocol: what the vendor speaks; by default TUITION_PROTOCOL, or else "tuition".
        model: which of its models to ask; `None` for its default.
        api_key_file: a file with the API key.
        cache: the file of bought embeddings; by default TUITION_CACHE, or else one in your cache folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    vendor: str = Field(default_factory=_vendor)
    protocol: ProtocolName = Field(default_factory=_protocol)
    model: str | None = None
    api_key_file: Path | None = None
    cache: Path | None = Field(default_factory=_cache)


class PurchaseOptions(VendorOptions):
    """What may be spent.

    Attributes:
        max_spend_micros: money that may be paid, over all resumptions, in millionths of the vendor's
            currency unit; `None` for no limit.
        yes: agrees beforehand to a purchase of more than five units. A `max_spend_micros` agrees too.
        max_spend_agrees: whether a `max_spend_micros` does agree, or is a limit alone, as that of
            tuition.toml is.
    """

    max_spend_micros: Micros | None = None
    yes: bool = False
    max_spend_agrees: bool = True

    @property
    def agreed(self) -> bool:
        """Whether a purchase of more than five units is agreed to beforehand."""
        return self.yes or (self.max_spend_agrees and self.max_spend_micros is not None)


class BulkOptions(PurchaseOptions):
    """Whether to buy by the vendor's bulk jobs, which take their time and cost less.

    Attributes:
        batch: buys by bulk jobs, at their prices.
        wait: waits for them. Without it a purchase ends as soon as its job is begun, with `JobRunning`; the
            same purchase goes on from there later.
    """

    batch: bool = False
    wait: bool = True


class TrainingOptions(PurchaseOptions):
    """Which images a student learns from, and how.

    Attributes:
        data: the labelled images: a folder, ROOT/<domain>/<class>/<image> or ROOT/<class>/<image>; or a table
            (.csv, .jsonl, .parquet) with the columns `path` and `label`, and perhaps `domain` and `split`
            ("train", "holdout"). Or a .txt file that names the classes, a line each, where no image has a
            label and all come from `unlabelled`.
        student: a timm backbone, or open_clip:MODEL/PRETRAINED, open_clip:FOLDER, open_clip:icon-clip.
        student_weights: a file of the backbone's weights; `None` for those of its name. Images that another
            run's student was trained on are not held out from one that begins with its weights.
        image_size: side of the student's input in pixels; `None` for the backbone's own.
        recipe: the training protocol, by name, or one of your own.
        steps: training steps; `None` for the recipe's, or for more where its `passes` take more.
        select: which images to buy when the budget does not reach all.
        unlabelled: images without labels, of any thing in any style, that are learnt from by what the teacher
            says of them, once all labelled ones are bought: folders, image files, patterns, and tables with a
            column `path`. Copies of labelled images, and of any that the student is tested on, are left out.
        group_by_name: whether files named <set>__<name> may be variants of one drawing, which are kept on
            one side of the split.
        device: "cpu", "cuda", "cuda:1" ...; "auto" takes a GPU if there is one.
    """

    data: Path
    student: str = DEFAULT_STUDENT
    student_weights: Path | None = None
    image_size: ImageSize | None = None
    recipe: RecipeName | Recipe = "default"
    steps: Steps | None = None
    select: SelectionStrategy = "stratified"
    unlabelled: tuple[str | Path, ...] = ()
    group_by_name: bool = False
    device: str = "auto"


class DistillOptions(TrainingOptions, BulkOptions):
    """One run: `client.distill`, and `client.plan`.

    It has the attributes of `TrainingOptions`, `BulkOptions`, `PurchaseOptions` and `VendorOptions`, and its
    own.

    Attributes:
        target_domain: a domain to hold out and be tested on; `None`, and every domain trains.
        leave_one_out: whether, before the student is trained on all domains, each is left out in turn, to
            measure what a new domain would get. It takes a training a domain, and hardly a query more.
        adapt: the same as `unlabelled`, of images that show the very domain where the student will work. Its
            accuracy there is then reported as that of adaptation, never as generalisation.
        budget: queries that may be newly paid for, over all resumptions. `client.distill` needs it, unless
            the method buys nothing; `None` is no limit for `client.plan`.
        method: how to train (`client methods` lists all); NAME+swad averages weights.
        seed: of splits, batches and views.
        out: the run's folder; `None` for runs/<data>-<target domain, or "all">-<method>-seed<seed>.
        replace: whether a finished student may be replaced, whose images have changed, say.
    """

    target_domain: str | None = None
    leave_one_out: bool = False
    adapt: tuple[str | Path, ...] = ()
    budget: Queries | None = None
    method: str = "vl2v-adip"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    out: Path | None = None
    replace: bool = False


class CompareOptions(TrainingOptions):
    """Many runs over one purchase: `client.compare`, and `client.plan_comparison`.

    It has the attributes of `TrainingOptions`, `PurchaseOptions` and `VendorOptions`, and its own.

    Attributes:
        out: the folder of the comparison.
        methods: the rows, as `client methods` lists them, each with or without +swad; and
            "zero-shot", the teacher itself, for which target images are sent to the vendor. A `Variant` is
            a row with a name and a recipe of its own, on which `recipe` and `steps` have no effect.
        target_domains: the domains to hold out, one after the other; empty for all.
        seeds: how many seeds, counted from 0.
        budget: embeddings that each run may use, prompts included, whoever paid; `None` for all it asks.
    """

    out: Path
    methods: Annotated[tuple[str | Variant, ...], Field(min_length=1)] = ("erm", "vl2v-adip")
    target_domains: tuple[str, ...] = ()
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    budget: Annotated[int, Field(ge=1, le=10**12)] | None = None


class EmbedOptions(BulkOptions):
    """Embeddings of texts and images: `client.embed`.

    It has the attributes of `BulkOptions`, `PurchaseOptions` and `VendorOptions`, and its own.

    Attributes:
        texts: the texts.
        images: image files, folders (searched below) and patterns ("shots/**/*.png").
        out: a file to write, FILE.npy, FILE.parquet or FILE.jsonl; `None` to get an array instead.
        budget: queries that may be newly paid for these inputs, over all resumptions and models; `None` for
            no limit.
    """

    texts: tuple[str, ...] = ()
    images: tuple[str | Path, ...] = ()
    out: Path | None = None
    budget: Queries | None = None


class CanaryOptions(VendorOptions):
    """Known inputs to ask a vendor about once more: `client.canary`.

    It has the attributes of `VendorOptions`, and its own.

    Attributes:
        texts: texts of which some may be asked again, where the cache has them.
        images: image files, folders (searched below) and patterns, likewise.
        count: how many inputs are asked again at most; each is paid for as any other query.
        yes: agrees beforehand to a purchase of more than five units.
    """

    texts: tuple[str, ...] = ()
    images: tuple[str | Path, ...] = ()
    count: Annotated[int, Field(ge=1, le=1000)] = 8
    yes: bool = False


class AskOptions(VendorOptions):
    """About which images a student's vendor is asked, and what that may cost: `Student.predict`.

    It has the attributes of `VendorOptions`, and its own. One of `share`, `below` and `accuracy` is given.

    Attributes:
        share: the share of the images to ask about, the least sure first, from 0 to 1.
        below: ask about images of which the student is less sure than this, from 0 to 1.
        accuracy: ask about as large a share as gave this accuracy on the hold-outs, from 0 to 1.
        budget: queries that may be paid for in a period, by whatever asks through this cache; `None` for no
            limit.
        period: "day" and "month" (in UTC), or "total" for a budget that is never filled up again.
        yes: agrees beforehand to a purchase of more than five units.
        keep: a folder to keep the images in that the vendor answered about, for the next student to learn
            from (`adapt`); `None` keeps none.
        keep_at_most: how many stay there; the oldest give way.
    """

    share: Annotated[float, Field(ge=0, le=1)] | None = None
    below: Annotated[float, Field(ge=0, le=1)] | None = None
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    budget: Queries | None = None
    period: Literal["day", "month", "total"] = "month"
    yes: bool = False
    keep: Path | None = None
    keep_at_most: Annotated[int, Field(ge=1, le=10**7)] = 10_000

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if [self.share, self.below, self.accuracy].count(None) != 2:
            raise ValueError("Say about how many images to ask: one of `share`, `below` and `accuracy`.")
        return self


class ServeOptions(BaseModel):
    """How a student is served: `serve`.

    Attributes:
        host: the address to listen on.
        port: the port; 0 for a free one.
        api_keys: a file of those who may ask, a name and the SHA-256 of a key a line; `None` for everybody.
        threads: how many batches are computed at a time; `None` for one a processor.
        log_format: of the log on standard error.
        reject: the rate of false rejects on the hold-outs, from 0.01 to 0.5, at which images are taken to
            show none of the classes; `None` for never.
        ask: whom to ask where the student is not sure, within a budget; `None` for nobody.
        ask_seconds: how long a caller waits for the vendor, up to 25; then the student answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    api_keys: Path | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    log_format: Literal["text", "json"] = "text"
    reject: Annotated[float, Field(ge=0, le=1)] | None = None
    ask: AskOptions | None = None
    # A request may take 60 seconds in all, and 28 where the server is to stop.
    ask_seconds: Annotated[float, Field(ge=0.01, le=25)] = 2.0

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.ask is not None and self.ask.budget is None:
            raise ValueError("A server asks for as long as it runs: give `ask` a `budget`.")
        return self
