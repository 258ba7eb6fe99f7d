"""Statements that are run for many rows at once, as a request's are."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, TypeDecorator, Update

Parameters = Mapping[str, object]


class ManyRows:
    """An INSERT or UPDATE that the driver is given with all rows as they are.

    It is put together once a dialect. SQLAlchemy would look at each value of each row as well, which takes
    it longer than the database; so this is for columns of plain numbers and texts, and of the tables' own
    types. Nothing is filled in that a row leaves out.
    """

    def __init__(self, statement: Insert | Update, columns: Sequence[str]) -> None:
        """Of a `statement` without values, which sets these `columns`."""
        self._statement = statement
        self._columns = columns
        self._ready: dict[str, tuple[str, Callable[[Parameters], Any]]] = {}  # by dialect

    def run(self, connection: Connection, rows: Sequence[Parameters]) -> None:
        """Run it for each row, given by the names of its columns and of the statement's own parameters."""
        dialect = connection.dialect
        if dialect.name not in self._ready:
            self._ready[dialect.name] = self._compiled(dialect)
        text, arranged = self._ready[dialect.name]
        connection.exec_driver_sql(text, [arranged(row) for row in rows])

    def _compiled(self, dialect: Dialect) -> tuple[str, Callable[[Parameters], Any]]:
        """Its text, and how the driver wants a row of parameters: in their order, or by name."""
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=list(self._columns))
        in_order: Sequence[str] | None = compiled.positiontup
        arranged: Callable[[Parameters], Any] = itemgetter(*in_order) if in_order else dict
        columns = {name: self._statement.table.c[name].type for name in self._columns}
        own = {name: kind for name, kind in columns.items() if isinstance(kind, TypeDecorator)}

        def written(row: Parameters) -> Any:  # noqa: ANN401 - as the driver has it
            return arranged(
                {**row, **{name: kind.process_bind_param(row[name], dialect) for name, kind in own.items()}}
            )

        return str(compiled), written if own else arranged
