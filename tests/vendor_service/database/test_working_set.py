"""The plain rows of the hot transactions, beside the tables that they are of."""

from dataclasses import fields

import pytest

from tests.vendor_service.books import Books
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.database.tables import Base, Hold, LedgerEntry
from vendor_service.database.working_set import ChargeRow, HoldRow, standing


@pytest.mark.parametrize(("row", "table"), [(HoldRow, Hold), (ChargeRow, LedgerEntry)])
def test_a_row_has_the_columns_of_its_table_in_their_order(
    row: type[HoldRow | ChargeRow], table: type[Base]
) -> None:
    assert [each.name for each in fields(row)] == list(table.__table__.columns.keys())
    assert list(row.__slots__) == [each.name for each in fields(row)]


def test_a_key_stands_with_its_account_and_its_project(books: Books) -> None:
    order = books.open(quota=7)
    of_project = books.open_project(order, ProjectTerms(quota=3), name="night")
    with books.database.read() as session:
        by_default, in_project = (standing(session.connection(), each.key_id) for each in (order, of_project))
        assert standing(session.connection(), "0" * 16) is None
    assert by_default is not None
    assert in_project is not None
    assert (by_default[0].id, by_default[0].quota, by_default[1].project) == (order.account_id, 7, None)
    project = in_project[1].project
    assert project is not None
    assert (project.name, project.quota, in_project[0].quota) == ("night", 3, 7)
    for stands, by in ((by_default, order), (in_project, of_project)):
        for each, kept in zip(stands, (books.account(by), books.key(by)), strict=True):
            names = type(each).__table__.columns.keys()
            assert [getattr(each, name) for name in names] == [getattr(kept, name) for name in names]
