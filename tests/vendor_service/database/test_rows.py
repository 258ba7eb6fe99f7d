"""The plain rows of the hot transactions, beside the tables that they are of."""

from dataclasses import fields

import pytest

from vendor_service.database.rows import ChargeRow, HoldRow
from vendor_service.database.tables import Base, Hold, LedgerEntry


@pytest.mark.parametrize(("row", "table"), [(HoldRow, Hold), (ChargeRow, LedgerEntry)])
def test_a_row_has_the_columns_of_its_table_in_their_order(
    row: type[HoldRow | ChargeRow], table: type[Base]
) -> None:
    assert [each.name for each in fields(row)] == list(table.__table__.columns.keys())
    assert list(row.__slots__) == [each.name for each in fields(row)]
