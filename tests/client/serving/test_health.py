"""`GET /readyz`: the student is asked, once at a time, and believed for a while."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from client.data.images import Pixels
from client.serving.batcher import Batcher
from client.serving.health import Readiness
from shared.errors import APIError
from shared.http.capacity import Capacity
from tests.client.serving.test_batcher import Reader, run


class Sick(Reader):
    """A student that fails while it is sick."""

    sick = True

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        self.batches.append([])
        if self.sick:
            raise RuntimeError("out of memory")
        return pixels[:, 0, 0, :1].astype(np.float32)


def test_a_student_that_fails_is_not_ready_and_is_once_it_answers_again() -> None:
    student = Sick()

    async def work(batcher: Batcher) -> None:
        capacity = Capacity(max_inputs=1, max_bytes=1, max_seconds=1)
        readiness = Readiness(batcher, capacity)
        with pytest.raises(APIError) as refused:
            await readiness.check()
        assert refused.value.code == "not_ready"
        assert refused.value.retry_after == 5
        student.sick = False
        student.batches.clear()
        await asyncio.gather(*(readiness.check() for _ in range(5)))
        await readiness.check()
        assert len(student.batches) == 1
        capacity.close()
        with pytest.raises(APIError) as refused:
            await readiness.check()
        assert refused.value.code == "shutting_down"

    run(work, student)
