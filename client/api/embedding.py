"""Embeddings of texts and images, bought where the cache lacks them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from client.api.confirm import Confirm, purchases
from client.data.finder import counted, described
from client.options.vendor import EmbedOptions
from client.progress import Display, ProgressListener
from client.purchase.buyer import Buyer
from client.purchase.result import PurchaseProgress, PurchaseResult
from client.results.records import Name, Record
from client.runs.connection import Connection
from client.runs.embedding import (
    Inputs,
    check_output,
    collect_inputs,
    embed_to_array,
    embed_to_file,
    run_id_of,
)


class Embeddings(Record):
    """The result of `tuition.embed`.

    Attributes:
        out: the file that was written; `None` where `vectors` has the embeddings.
        rows: how many rows the file or the array has.
        embedded: how many of them are embeddings.
        queries_bought: queries that were paid for.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        skipped: images that could not be embedded, with the reason.
        left_out: how many files of folders and patterns were left out, by reason.
        passed_over: those of them that were left out on purpose, with the reason.
        inputs: how many texts and images were given.
        lost: queries that may have been charged without an answer; they were asked again, and count.
        vectors: float32 of shape (rows, dimensions), L2-normalised, a row each text and then each image in
            the order given; NaN for an image that was skipped. `None` where a file was written.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    out: Name | None
    rows: int
    embedded: int
    queries_bought: int
    cost_micros: int
    skipped: dict[Name, Name]
    left_out: dict[Name, int]
    passed_over: dict[Name, Name]
    inputs: int = Field(exclude=True)
    lost: int = Field(exclude=True)
    vectors: NDArray[np.float32] | None = Field(default=None, exclude=True, repr=False)


def embed(
    options: EmbedOptions, *, confirm: Confirm | None = None, progress: ProgressListener | None = None
) -> Embeddings:
    """Embed texts and images, buying what the cache lacks. Rows are in the order given: texts, then images.

    In .npy, images that cannot be embedded are rows of NaN, and FILE.index.jsonl names every row; .parquet
    and .jsonl hold the names themselves, and leave such images out.

    Args:
        options: the inputs, and what may be spent.
        confirm: is asked whether a purchase of more than five units may begin, unless the options say so.
            Without it such a purchase is refused.
        progress: is told how the work goes on.

    Raises:
        UsageError: there is nothing to embed, the file cannot be written, or nobody agreed.
        BudgetExhausted: the budget ended first; nothing is written, and what was bought is kept.
        ClientError: see client/errors.py; what was bought is in the cache.
    """
    if options.out is not None:
        check_output(options.out)
    connection = Connection(options, progress)
    inputs = collect_inputs(options.texts, [str(word) for word in options.images], connection.display)
    run_id = run_id_of(inputs.queries)
    approve = purchases(agreed=options.agreed, confirm=confirm)
    with connection.teacher(run_id=run_id, budget=options.budget) as teacher:
        offer = teacher.quote(inputs.queries)
        approve(offer.cost_micros)
        with connection.display.track("Buying", offer.to_buy) as advance:

            def on_progress(bought: PurchaseProgress) -> None:
                advance(bought.done, bought.described(cached=offer.cached))

            embeddings = _embedded(options, inputs, teacher, on_progress)
    _mention(embeddings, connection.display)
    return embeddings


def _embedded(
    options: EmbedOptions, inputs: Inputs, teacher: Buyer, on_progress: Callable[[PurchaseProgress], None]
) -> Embeddings:
    if options.out is None:
        purchase, vectors = embed_to_array(teacher, inputs.rows, on_progress)
        embedded = int((~np.isnan(vectors[:, 0])).sum())
        return _described(inputs, purchase, None, len(vectors), embedded, vectors)
    purchase, rows, embedded = embed_to_file(teacher, inputs.rows, options.out, on_progress)
    return _described(inputs, purchase, str(options.out), rows, embedded, None)


def _described(
    inputs: Inputs,
    purchase: PurchaseResult,
    out: str | None,
    rows: int,
    embedded: int,
    vectors: NDArray[np.float32] | None,
) -> Embeddings:
    refused = purchase.refused
    return Embeddings(
        out=out,
        rows=rows,
        embedded=embedded,
        queries_bought=purchase.bought,
        cost_micros=purchase.cost_micros,
        skipped=inputs.unreadable
        | {query.name: refused[query] for query in inputs.queries if query in refused},
        left_out=counted(inputs.left_out),
        passed_over={str(file.path): file.reason for file in inputs.passed_over},
        inputs=len(inputs.rows),
        lost=purchase.lost,
        vectors=vectors,
    )


def _mention(embeddings: Embeddings, display: Display) -> None:
    display.note_skipped(embeddings.skipped, listed_in="--json")
    if embeddings.lost:
        display.note(
            f"{embeddings.lost} queries may have been charged without an answer, and were asked again; they "
            "count towards the budget."
        )
    if embeddings.left_out:
        display.note(f"Left out: {described(embeddings.left_out)}.")
    where = "" if embeddings.out is None else f" in {embeddings.out}"
    display.note(
        f"{embeddings.embedded} of {embeddings.inputs} embeddings{where}: {embeddings.queries_bought} bought "
        f"for {embeddings.cost_micros} micros, the others from the cache."
    )
