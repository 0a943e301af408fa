"""Statements that are run for many rows at once."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from counterplay.store.database import open_database
from counterplay.store.statements import execute_many, insert_or_ignore
from counterplay.store.tables import feed, unit, unit_keys

LISTED = {"feed_id": 1, "locator": "{}", "status": "listed", "listed": "2026-03-02T08:00:00.000000Z"}
SET = (
    sa.update(unit)
    .where(unit.c.id == sa.bindparam("of"))
    .values(status="fetched", size=sa.bindparam("bytes"), retry_at=None)
)
INSERT_KEYS = unit_keys.insert()


@pytest.fixture
def rows(store: str) -> Any:
    """What a table holds after statements: `rows(table, (a statement by connection, its rows), ...)`."""
    database = open_database(store)

    def held(table: sa.Table, *many: tuple[Any, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        with database.write() as connection:
            for statement, given in many:
                execute_many(connection, statement(connection), given)
            order = list(table.primary_key.columns)
            return [dict(row) for row in connection.execute(table.select().order_by(*order)).mappings()]

    with database.write() as connection:
        connection.execute(
            feed.insert(),
            {"id": 1, "trigger": "t", "connection": "c", "tenant": "t", "key": "{}", "created": "now"},
        )
    yield held
    database.close()


def listing(connection: sa.Connection) -> sa.Insert:
    return insert_or_ignore(connection, unit)


def test_columns_that_rows_leave_out_get_their_defaults(rows: Any) -> None:
    """As they do when a single row is written; one that is there already is left alone."""
    units = [{**LISTED, "id": number, "unit_key": f"u{number}"} for number in (1, 2)]
    found = rows(unit, (listing, units), (listing, [{**units[0], "locator": "other"}]))
    assert [(one["unit_key"], one["locator"], one["attempts"], one["broken"]) for one in found] == [
        ("u1", "{}", 0, 0),
        ("u2", "{}", 0, 0),
    ]
    assert found[0]["retry_at"] is None


def test_rows_are_changed_each_with_its_own_values(rows: Any) -> None:
    """What the statement says for all of them is the same for each, None included."""
    units = [{**LISTED, "id": n, "unit_key": f"u{n}", "retry_at": LISTED["listed"]} for n in (1, 2, 3)]
    changes = [{"of": 3, "bytes": 30}, {"of": 1, "bytes": 10}]
    found = rows(unit, (listing, units), (lambda _: SET, changes))
    assert [(one["status"], one["size"], one["retry_at"]) for one in found] == [
        ("fetched", 10, None),
        ("listed", None, LISTED["listed"]),
        ("fetched", 30, None),
    ]


def test_bytes_arrive_as_they_are(rows: Any) -> None:
    """Every byte of them, and none where there are none."""
    units = [{**LISTED, "id": number, "unit_key": f"u{number}"} for number in (1, 2)]
    keys = [
        {"unit_id": 1, "keys": bytes(range(256)), "checks": b"\0%s"},
        {"unit_id": 2, "keys": b"", "checks": b""},
    ]
    assert rows(unit_keys, (listing, units), (lambda _: INSERT_KEYS, keys)) == keys


def test_no_rows_are_no_statement(rows: Any) -> None:
    assert rows(unit, (listing, [])) == []


def test_a_row_without_what_the_others_have_is_an_error(rows: Any) -> None:
    """Nothing is made up for it."""
    units = [{**LISTED, "id": number, "unit_key": f"u{number}"} for number in (1, 2)]
    keys = [{"unit_id": 1, "keys": b"1", "checks": b"1"}, {"unit_id": 2, "keys": b"2"}]
    with pytest.raises((KeyError, sa.exc.StatementError)):
        rows(unit_keys, (listing, units), (lambda _: INSERT_KEYS, keys))
