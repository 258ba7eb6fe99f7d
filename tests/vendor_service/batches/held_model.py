"""A real model that a test takes hold of, in the process of the test."""

import asyncio
import threading
from typing import Any

import pytest

from vendor_service.encoder.engine import Engine


class HeldModel:
    """The model, which stands still at a text and fails on `explode`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stopped = threading.Event()
        self._go = threading.Event()
        self._text = ""
        encode = Engine.encode

        async def held(engine: Engine, account: str, prepared: Any, **rest: Any) -> Any:
            texts = [getattr(each, "text", "") for each in prepared]
            if self._text in texts:
                self.stopped.set()
                await asyncio.to_thread(self._go.wait, 20)
            if "explode" in texts:
                raise RuntimeError("secret: the model is broken")
            return await encode(engine, account, prepared, **rest)

        monkeypatch.setattr(Engine, "encode", held)

    def stop_at(self, text: str) -> None:
        self._text = text

    def go(self) -> None:
        self._text = ""
        self._go.set()
