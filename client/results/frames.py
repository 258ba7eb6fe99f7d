"""Results as tables of pandas, which is imported when one is asked for."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from client.errors import UsageError

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(rows: Iterable[Mapping[str, object]]) -> "DataFrame":
    """A table of these rows, with a column for each name.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise UsageError("to_pandas takes pandas: pip install pandas") from error
    return DataFrame(list(rows))
