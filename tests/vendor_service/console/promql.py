"""As much of PromQL as the dashboard asks with, over two scrapes, to compare with what the console says."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
_SELECTOR = re.compile(r"\b([a-z]\w*)\{([^}]*)\}(?:\[[^\]]*\])?|\b((?:tuition|process)_\w+)(?:\[[^\]]*\])?")
_BY = re.compile(r"\b(sum|max) by \(([^)]*)\) \(")
_MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')


@dataclass(frozen=True)
class Vector:
    """Values by labels; two of them are divided where the labels are the same."""

    values: dict[Labels, float]

    def __bool__(self) -> bool:
        return bool(self.values)

    def __truediv__(self, other: "Vector | float") -> "Vector":
        if isinstance(other, Vector):
            pairs = {
                key: (value, other.values[key]) for key, value in self.values.items() if key in other.values
            }
            return Vector({key: one / two if two else math.nan for key, (one, two) in pairs.items()})
        return Vector({key: value / other for key, value in self.values.items()})

    def __mul__(self, factor: float) -> "Vector":
        return Vector({key: value * factor for key, value in self.values.items()})

    @property
    def only(self) -> float:
        """The one value that there is."""
        (value,) = self.values.values()
        return value

    def of(self, **labels: str) -> float:
        """The value with these labels alone."""
        return self.values[frozenset(labels.items())]


def evaluate(expression: str, before: str, after: str, seconds: float) -> Vector:
    """An expression of the dashboard, between two answers of `/metrics` that are so far apart."""
    former, latter = _read(before), _read(after)

    def select(name: str, matchers: str, read: dict[str, dict[Labels, float]]) -> dict[Labels, float]:
        wanted = [match for match in _MATCHER.findall(matchers) if match[0] not in ("instance", "job")]
        return {key: value for key, value in read.get(name, {}).items() if _matches(dict(key), wanted)}

    def series(name: str, matchers: str) -> tuple[Vector, Vector]:
        return Vector(select(name, matchers, latter)), Vector(select(name, matchers, former))

    def increase(both: tuple[Vector, Vector]) -> Vector:
        return Vector({key: value - both[1].values.get(key, 0.0) for key, value in both[0].values.items()})

    names: dict[str, Any] = {
        "series": series,
        "increase": increase,
        "rate": lambda both: increase(both) / seconds,
        "vector": lambda value: Vector({frozenset(): float(value)}),
        "histogram_quantile": _quantile,
        "sum_by": lambda labels, vector: _gather(labels, vector, sum),
        "max_by": lambda labels, vector: _gather(labels, vector, max),
        "sum": lambda vector: _gather([], vector, sum),
        "max": lambda vector: _gather([], vector, max),
        "topk": lambda _, vector: vector,
    }
    code = _BY.sub(lambda match: f"{match[1]}_by({match[2].split(', ')!r}, ", expression)
    code = _SELECTOR.sub(lambda match: f"series({match[1] or match[3]!r}, {(match[2] or '')!r})", code)
    found = eval(code, {"__builtins__": {}}, names)  # of the dashboard
    return found if isinstance(found, Vector) else Vector(found[0].values)


def _read(text: str) -> dict[str, dict[Labels, float]]:
    read: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            read.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return read


def _matches(labels: dict[str, str], wanted: list[tuple[str, str, str]]) -> bool:
    for name, how, value in wanted:
        there = labels.get(name, "")
        if how == "=~" and not re.fullmatch(value, there):
            return False
        if (how == "=" and there != value) or (how == "!=" and there == value):
            return False
    return True


def _gather(labels: list[str], given: Any, pick: Callable[[list[float]], float]) -> Vector:
    vector = given if isinstance(given, Vector) else given[0]  # a gauge is not within rate()
    groups: dict[Labels, list[float]] = {}
    for key, value in vector.values.items():
        kept = frozenset((name, found) for name, found in key if name in labels)
        groups.setdefault(kept, []).append(value)
    return Vector({key: pick(values) for key, values in groups.items()})


def _quantile(share: float, buckets: Vector) -> Vector:
    """As Prometheus has it: linear within the bucket that the rank lies in."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for key, count in buckets.values.items():
        labels = dict(key)
        bound = float(labels.pop("le"))
        groups.setdefault(frozenset(labels.items()), []).append((bound, count))
    found = {}
    for key, counts in groups.items():
        counts.sort()
        rank = share * counts[-1][1]
        at = next((n for n, (_, count) in enumerate(counts) if count >= rank), len(counts) - 1)
        lower, below = (0.0, 0.0) if at == 0 else counts[at - 1]
        upper, inside = counts[at][0], counts[at][1] - below
        if not counts[-1][1]:
            found[key] = math.nan
        elif math.isinf(upper):
            found[key] = lower
        else:
            found[key] = lower + (upper - lower) * (rank - below) / inside
    return Vector(found)
