"""What the routes of bulk jobs work with, and how the lines of each endpoint are read and answered."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.embeddings import EmbedRequest
from vendor_service.accounts.authentication import Authentication
from vendor_service.batches.files import Files
from vendor_service.batches.jobs import Jobs
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.lines import Dialect, LineReader
from vendor_service.batches.runner import Runner
from vendor_service.embed.models import Models
from vendor_service.embed.results import as_json
from vendor_service.http.openai import OpenAIRequest, make_openai_queries, render_openai
from vendor_service.http.reading import make_json_queries
from vendor_service.money.signing import Signs

DIALECTS: Mapping[str, Dialect] = {
    "/v1/embeddings": Dialect(OpenAIRequest, "input", make_openai_queries, render_openai),
    "/embed": Dialect(EmbedRequest, "inputs", make_json_queries, as_json),
}


@dataclass(frozen=True)
class BulkDesk:
    """All that the routes of bulk jobs need."""

    files: Files
    jobs: Jobs
    runner: Runner
    reader: LineReader
    limits: BatchLimits
    models: Models
    signer: Signs
    authentication: Authentication
