"""A batcher with workers of its own, as the engine has them."""

from collections.abc import Sequence

from typing_extensions import override

from vendor_service.encoder.batcher import Batcher
from vendor_service.encoder.engine import Device, DeviceWorker
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.replica import Buckets


class RunningBatcher(Batcher):
    """A batcher, and a worker for each device."""

    def __init__(
        self,
        devices: Sequence[Device],
        buckets: Buckets,
        observer: Observer,
        pause_seconds: float = 1.0,
        *,
        on_processors: bool = False,
    ) -> None:
        super().__init__(len(devices), buckets, observer, on_processors=on_processors)
        self._workers = [
            DeviceWorker(number, device, self, observer, pause_seconds)
            for number, device in enumerate(devices)
        ]

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()

    @override
    def close(self) -> None:
        super().close()
        for worker in self._workers:
            worker.join()
        self._workers.clear()  # the two know each other
