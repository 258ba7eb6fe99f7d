"""From texts to tokens: open_clip's own, at a cost that grows little faster than the text."""

import heapq
import html
import math
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import ftfy
import numpy as np
import regex
from numpy.typing import NDArray

from shared.errors import ErrorCode
from vendor_service.errors import APIError

Tokens = NDArray[np.int64]

_SECONDS = 1.0  # of a processor, for one text; 10,000 characters of any kind take a fifth of it
# ftfy repeats itself until a text stays as it is, and one can be made that loses one character each time. So
# often it may look at a text, or at as many characters of its parts; what people write takes three or four.
_MOST_LOOKS = 16
_MEMORY_BYTES = 512 << 20
_END_OF_WORD = "</w>"
_REMEMBERED = 1 << 15  # words, of which none is long
_LONG = 32  # characters


class Tokenizer(Protocol):
    """Makes tokens of a text. It can be pickled."""

    @property
    def context_length(self) -> int:
        """How many tokens it makes of every text."""

    def __call__(self, text: str) -> Tokens:
        """The tokens, shape (context_length,)."""


class TextTask:
    """Tokenizes texts in a process of its own; it is a `Task`."""

    seconds = _SECONDS
    memory_bytes = _MEMORY_BYTES

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def do(
        self,
        content: bytes,
        output: memoryview,
        _allow: Callable[[float], None],
        *,
        encoded: bool,
        free: bool,
    ) -> None:
        """Write the tokens of a text to `output`.

        Raises:
            APIError: it cannot be tokenized.
        """
        del encoded, free
        try:
            text = content.decode("utf-8", "surrogatepass")
            with _few_looks(text):
                tokens = self._tokenizer(text)
        except APIError:
            raise
        except MemoryError as error:
            message = "tokenizing takes more memory than a text may take; send a shorter text"
            raise APIError(ErrorCode.INVALID_REQUEST, message) from error
        except Exception as error:
            raise APIError(ErrorCode.INVALID_REQUEST, "the text cannot be tokenized") from error
        output[:] = np.ascontiguousarray(tokens).data.cast("B")


class _Looks(threading.local):
    """How many characters ftfy may look at in this thread."""

    left: float = math.inf


_looks = _Looks()
_look = ftfy._fix_encoding_one_step_and_explain  # all that it repeats comes through here


def _look_counted(text: str, config: ftfy.TextFixerConfig) -> ftfy.ExplainedText:
    _looks.left -= len(text)
    if _looks.left < 0:
        message = "the text is escaped or misencoded too many times over; send it as it is meant"
        raise APIError(ErrorCode.INVALID_REQUEST, message)
    return _look(text, config)


ftfy._fix_encoding_one_step_and_explain = _look_counted


@contextmanager
def _few_looks(text: str) -> Iterator[None]:
    """Refuse a text of which ftfy has seen too much, whichever tokenizer calls it; change no other."""
    _looks.left = _MOST_LOOKS * len(text)
    try:
        yield
    finally:
        _looks.left = math.inf


class Merges:
    """Byte pair encoding of a word, as open_clip's `SimpleTokenizer.bpe` does it.

    That one looks at the whole word again after each merge. Here the pairs that may be merged wait by their
    rank, so a word of n characters takes n log n steps, to the same result.
    """

    def __init__(self, ranks: Mapping[tuple[str, str], int], whole: Mapping[str, str]) -> None:
        self._ranks = dict(ranks)
        self._whole = dict(whole)  # words that stay as they are
        self._remember()

    def __getstate__(self) -> dict[str, Any]:
        return {"_ranks": self._ranks, "_whole": self._whole}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remember()

    def __call__(self, word: str) -> str:
        """The parts of a word, separated by spaces."""
        return self._short(word) if len(word) <= _LONG else self._merged(word)

    def _remember(self) -> None:
        self._pairs = {rank: pair for pair, rank in self._ranks.items()}
        self._short = lru_cache(_REMEMBERED)(self._merged)

    def _merged(self, word: str) -> str:
        if word in self._whole:
            return self._whole[word]
        chain = _Chain([*word[:-1], word[-1] + _END_OF_WORD])
        waiting: dict[int, list[int]] = {}  # where the pairs of each rank begin
        order: list[int] = []

        def note(start: int) -> None:
            rank = self._ranks.get(chain.pair(start))
            if rank is not None:
                if rank not in waiting:
                    heapq.heappush(order, rank)
                waiting.setdefault(rank, []).append(start)

        for start in range(len(word) - 1):
            note(start)
        while order:
            rank = heapq.heappop(order)
            pair = self._pairs[rank]
            # All that there are now, from the left; pairs that this makes come later, whatever their rank.
            merged = [start for start in sorted(waiting.pop(rank)) if chain.merge(start, pair)]
            for start in merged:
                for begins in {chain.before[start], start}:
                    note(begins)
        return " ".join(chain.left())


class _Chain:
    """The parts of a word, each with its neighbours."""

    def __init__(self, parts: list[str]) -> None:
        self._parts: list[str | None] = list(parts)
        self.before = list(range(-1, len(parts) - 1))
        self._after = [*range(1, len(parts)), -1]

    def pair(self, start: int) -> tuple[str, str]:
        """The part that starts there and the next one; a pair that has no rank, where there is none."""
        after = self._after[start] if start >= 0 else -1
        return (self._parts[start] or "", self._parts[after] or "") if after >= 0 else ("", "")

    def merge(self, start: int, pair: tuple[str, str]) -> bool:
        """Make one part of a pair, if it is still there."""
        if self._parts[start] is None or self.pair(start) != pair:
            return False
        gone = self._after[start]
        self._parts[start], self._parts[gone] = "".join(pair), None
        self._after[start] = self._after[gone]
        if self._after[gone] >= 0:
            self.before[self._after[gone]] = start
        return True

    def left(self) -> list[str]:
        """The parts, in order."""
        return [part for part in self._parts if part is not None]


class ClipTokenizer:
    """The tokens of open_clip's `SimpleTokenizer`, without open_clip: it starts in a tenth of the time.

    Only as much of a text is encoded as its tokens have room for. Made by `of`.
    """

    def __init__(self, of: Any) -> None:  # noqa: ANN401 - open_clip has no types
        self.context_length: int = of.context_length
        self._lower = of.clean_fn.__name__ == "_clean_lower"
        self._bytes: dict[int, str] = of.byte_encoder
        self._numbers: dict[str, int] = of.encoder
        self._pattern = regex.compile(of.pat.pattern, of.pat.flags)
        self._merges = Merges(of.bpe_ranks, {special: special for special in of.cache if special[:1] == "<"})
        self._start, self._end = of.sot_token_id, of.eot_token_id

    @classmethod
    def of(cls, tokenizer: Any) -> "ClipTokenizer | None":  # noqa: ANN401
        """The same as open_clip's tokenizer, or `None` where that is one of another kind."""
        plain = type(tokenizer).__name__ == "SimpleTokenizer" and tokenizer.reduction_fn is None
        known = plain and tokenizer.clean_fn.__name__ in ("_clean_lower", "_clean_whitespace")
        return cls(tokenizer) if known else None

    def __call__(self, text: str) -> Tokens:
        """The tokens, shape (context_length,)."""
        tokens = [self._start, *self._encoded(self._cleaned(text)), self._end]
        if len(tokens) > self.context_length:
            tokens = [*tokens[: self.context_length - 1], self._end]
        row = np.zeros(self.context_length, dtype=np.int64)
        row[: len(tokens)] = tokens
        return row

    def _cleaned(self, text: str) -> str:
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        text = " ".join(text.split()).strip()
        return text.lower() if self._lower else text

    def _encoded(self, text: str) -> list[int]:
        tokens: list[int] = []
        for found in self._pattern.finditer(text):
            word = "".join(self._bytes[each] for each in found.group().encode())
            tokens += [self._numbers[part] for part in self._merges(word).split(" ")]
            if len(tokens) >= self.context_length:
                break
        return tokens


class OpenClipTokenizer:
    """Any tokenizer of open_clip's. Pickled, it is whole: who gets it has no token to ask a hub with."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        if hasattr(tokenizer, "bpe_ranks"):
            tokenizer.bpe = Merges(tokenizer.bpe_ranks, tokenizer.cache)

    def __reduce__(self) -> tuple[Callable[[bytes], Tokenizer], tuple[bytes]]:
        return _unpickled, (pickle.dumps(self._tokenizer),)

    @property
    def context_length(self) -> int:
        """How many tokens it makes of every text."""
        return int(self._tokenizer.context_length)

    def __call__(self, text: str) -> Tokens:
        """The tokens, shape (context_length,)."""
        with self._lock:  # those of Hugging Face fail when two threads use them
            tokens: Tokens = self._tokenizer([text])[0].numpy().astype(np.int64)
        return tokens


def _unpickled(tokenizer: bytes) -> Tokenizer:
    # Before the pickle imports open_clip, and with it more than is needed.
    import vendor_service.encoder.libraries  # noqa: F401

    return OpenClipTokenizer(pickle.loads(tokenizer))  # noqa: S301 - the vendor's own words


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a model, by open_clip's name of it.

    Raises:
        Exception: whatever open_clip and its hub raise.
    """
    # Here, as it takes seconds, and most processes that tokenize do without.
    from vendor_service.encoder.libraries import open_clip

    with warnings.catch_warnings():
        # open_clip leaves its vocabulary file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        tokenizer = open_clip.get_tokenizer(name)
    return ClipTokenizer.of(tokenizer) or OpenClipTokenizer(tokenizer)


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    """The tokens of texts, shape (texts, context_length)."""
    return np.stack([tokenizer(text) for text in texts])
