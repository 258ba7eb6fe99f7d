"""`/v1/files` and `/v1/batches`: bulk jobs, in the shapes of OpenAI's Files and Batch API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.kinds import Whole

Purpose = Literal["batch", "batch_output"]
JobState = Literal["in_progress", "completed", "cancelled", "expired"]
# In how much time a job is done or given up, as a request names it and in seconds.
WINDOW: Literal["24h"] = "24h"
WINDOW_SECONDS = 24 * 3600


class FileObject(BaseModel):
    """A file. Times are in seconds since 1970."""

    id: str
    object: Literal["file"] = "file"
    bytes: Whole
    created_at: Whole
    expires_at: Whole
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """Some of an account's files, the newest first."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


_Label = Annotated[str, Field(max_length=512)]
Labels = Annotated[dict[Annotated[str, Field(max_length=64)], _Label], Field(max_length=16)]


class BatchRequest(BaseModel):
    """A job to be done: the lines of a file, all of them for one endpoint and one model."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    endpoint: Literal["/v1/embeddings", "/embed"]
    completion_window: Literal["24h"]
    metadata: Labels | None = None


class RequestCounts(BaseModel):
    """The lines of a job, and what became of them so far."""

    total: Whole
    completed: Whole
    failed: Whole

    @property
    def done(self) -> int:
        """The lines that were answered or refused."""
        return self.completed + self.failed

    @property
    def left(self) -> int:
        """The other ones."""
        return self.total - self.done


class BatchObject(BaseModel):
    """A job. Beyond OpenAI's fields it tells its cost: `cost_micros` so far, `held_micros` at most more."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str
    model_fingerprint: str
    errors: dict[str, Any] | None = None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: JobState
    output_file_id: str | None
    error_file_id: str | None
    created_at: Whole
    in_progress_at: Whole
    expires_at: Whole
    completed_at: Whole | None
    cancelled_at: Whole | None
    expired_at: Whole | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    cost_micros: Whole
    held_micros: Whole


class BatchList(BaseModel):
    """Some of an account's jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, jobs: list[BatchObject], has_more: bool) -> "BatchList":
        """A page of these jobs."""
        ids = [each.id for each in jobs]
        return cls(
            data=jobs, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=has_more
        )


class ChunkReceipt(BaseModel):
    """The signed receipt of some lines of a job, `lines` of them from `first_line` on, counted from 0.

    In its hashes INDEX counts the inputs of those lines that can be read, from 0.
    """

    first_line: Whole
    lines: Whole
    receipt: str


class BatchReceipts(BaseModel):
    """Receipts of what a job was charged so far, in the order of its lines; ask again after `next_after`."""

    data: list[ChunkReceipt]
    next_after: Whole | None
