"""Texts become tokens: open_clip's own, in a time that grows little faster than the text."""

import heapq
import html
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import ftfy
import numpy as np
import regex
from numpy.typing import NDArray

from shared.errors import ErrorCode
from vendor_service.errors import APIError

Tokens = NDArray[np.int64]

_SECONDS = 1.0  # of a processor, for one text; most texts of 10,000 characters take less than a fifth of it
_MEMORY_BYTES = 512 << 20
_END_OF_WORD = "</w>"
_REMEMBERED_WORDS = 1 << 15
_LONGEST_REMEMBERED = 32  # characters


class Tokenizer(Protocol):
    """Makes tokens of a text. It can be pickled."""

    @property
    def context_length(self) -> int:
        """The number of tokens that it makes of every text."""

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
        encoded: bool,  # noqa: ARG002 - a text never is
        free: bool,  # noqa: ARG002 - every text has all that it may have
    ) -> None:
        """Write the tokens of a text to `output`.

        Raises:
            APIError: it cannot be tokenized.
        """
        try:
            tokens = self._tokenizer(content.decode("utf-8", "surrogatepass"))
        except MemoryError as error:
            message = "tokenizing takes more memory than a text may take; send a shorter text"
            raise APIError(ErrorCode.INVALID_REQUEST, message) from error
        except Exception as error:
            raise APIError(ErrorCode.INVALID_REQUEST, "the text cannot be tokenized") from error
        output[:] = np.ascontiguousarray(tokens).data.cast("B")


class Merges:
    """Byte pair encoding of a word (Sennrich et al., ACL 2016), as open_clip's `SimpleTokenizer.bpe` does it.

    That one looks at the whole word again after each merge. Here the pairs wait in a heap, so that a word of
    n characters takes n log n steps, to the same result. `ranks` are those of pairs, and `whole` has words
    that are not taken apart.
    """

    def __init__(self, ranks: Mapping[tuple[str, str], int], whole: Mapping[str, str]) -> None:
        self._ranks = ranks
        self._whole = whole
        self._remembered = lru_cache(_REMEMBERED_WORDS)(self._merged)

    def __reduce__(self) -> tuple[Any, ...]:
        return Merges, (self._ranks, self._whole)

    def __call__(self, word: str) -> str:
        """The parts of a word, separated by spaces."""
        return self._remembered(word) if len(word) <= _LONGEST_REMEMBERED else self._merged(word)

    def _merged(self, word: str) -> str:
        if word in self._whole:
            return self._whole[word]
        count = len(word)
        parts = [*word[:-1], word[-1] + _END_OF_WORD, ""]  # an empty part is in no pair
        before, after = [*range(-1, count)], [*range(1, count + 1), count]
        waiting: list[tuple[int, int]] = []  # the ranks of pairs, and where these start

        def rank_at(start: int) -> int | None:
            return self._ranks.get((parts[start], parts[after[start]]))

        def note(start: int) -> None:
            if (rank := rank_at(start)) is not None:
                heapq.heappush(waiting, (rank, start))

        for start in range(count):
            note(start)
        while waiting:
            # All pairs of one rank are merged, from the left, before those that this makes.
            lowest, merged = waiting[0][0], []
            while waiting and waiting[0][0] == lowest:
                _, start = heapq.heappop(waiting)
                if rank_at(start) != lowest:
                    continue  # one of its parts went into another pair
                gone = after[start]
                parts[start], parts[gone] = parts[start] + parts[gone], ""
                after[start] = after[gone]
                before[after[gone]] = start
                merged.append(start)
            for start in merged:
                note(before[start])
                note(start)
        return " ".join(part for part in parts if part)


class ClipTokenizer:
    """The tokens of open_clip's `SimpleTokenizer`, without importing open_clip. It is made by `of`.

    A process that has it starts in a tenth of the time. It encodes only as much of a text as has room.
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
        """The same as open_clip's tokenizer, or `None` where that is of another kind."""
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
    """Any other tokenizer of open_clip's. It is pickled whole, for a process that may ask no hub for it."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer
        if hasattr(tokenizer, "bpe_ranks"):
            tokenizer.bpe = Merges(tokenizer.bpe_ranks, tokenizer.cache)

    def __reduce__(self) -> tuple[Callable[[bytes], Tokenizer], tuple[bytes]]:
        return _unpickled, (pickle.dumps(self._tokenizer),)

    @property
    def context_length(self) -> int:
        """The number of tokens that it makes of every text."""
        return int(self._tokenizer.context_length)

    def __call__(self, text: str) -> Tokens:
        """The tokens, shape (context_length,)."""
        tokens: Tokens = self._tokenizer([text])[0].numpy().astype(np.int64)
        return tokens


def _unpickled(tokenizer: bytes) -> Tokenizer:
    # Before the pickle imports open_clip, and with it more than is needed.
    import vendor_service.encoder.libraries  # noqa: F401

    return OpenClipTokenizer(pickle.loads(tokenizer))  # noqa: S301 - made in the vendor's own process


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
