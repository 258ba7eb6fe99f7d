"""The metrics of a deployed student, beside those of every server."""

from client.serving.answers import AnsweredBy
from shared.http.metrics import SECONDS, SIZES, RequestMetrics
from shared.kinds import Kind


class Metrics(RequestMetrics):
    """The series of docs/serving.md. Every method may be called from any thread.

    Attributes:
        answered_by: how many images each has answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self._images = self._counter("images", "Images answered, by who answered.", "answered_by")
        self.answered_by: dict[AnsweredBy, int] = {"student": 0, "cache": 0, "vendor": 0}
        self._rejected = self._counter("rejected_images", "Images answered with none of the classes.")
        self._decode_seconds = self._histogram("decode_seconds", "To decode one image.", SECONDS)
        self._restarts = self._counter("preparation_restarts", "Ends of a process that decodes.", "reason")
        self._batch_size = self._histogram("batch_size", "Images in one batch.", SIZES)
        self._student_seconds = self._histogram(
            "student_seconds", "For the student to answer one batch.", SECONDS
        )

    def answered_image(self, answered_by: AnsweredBy, *, rejected: bool) -> None:
        """An image was answered, perhaps with none of the classes; only the event loop tells that."""
        self._images.labels(answered_by).inc()
        self.answered_by[answered_by] += 1
        if rejected:
            self._rejected.inc()

    def decoded(self, _kind: Kind, seconds: float) -> None:
        """An image was decoded, or found to be bad."""
        self._decode_seconds.observe(seconds)

    def restarted(self, _kind: Kind, reason: str) -> None:
        """A process that decodes ended, and another takes its place."""
        self._restarts.labels(reason).inc()

    def ran(self, size: int, seconds: float) -> None:
        """The student answered a batch."""
        self._batch_size.observe(size)
        self._student_seconds.observe(seconds)
