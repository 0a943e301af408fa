"""`verify` on a step: does an effect hold, now and later?"""

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from counterplay.store.tables import effect, watch


def rows(bench: Any) -> list[Any]:
    """The looks, by when they are due."""
    database = bench.database()
    try:
        with database.read() as connection:
            return list(connection.execute(sa.select(watch).order_by(watch.c.due)))
    finally:
        database.close()


def pass_time(bench: Any) -> None:
    """Make every look due."""
    database = bench.database()
    try:
        with database.write() as connection:
            connection.execute(sa.update(watch).values(due="2000-01-01T00:00:00.000000Z"))
    finally:
        database.close()


@pytest.fixture
def watched(bench: Any, block: Callable[..., Any]) -> Any:
    """A run that blocked somebody and is to be looked at twice."""
    bench.write(block(bench.user()["id"], verify={"after": ["5m", "24h"]}))
    bench.write(
        {"uses": "m365.get_user", "connection": "contoso", "with": {"user_id": bench.user()["id"]}},
        name="next",
    )
    assert bench.run().exit_code == 0
    return bench


def test_looks_are_planted_with_the_effect(watched: Any) -> None:
    """One for each time, after the effect took place."""
    assert [(one.after, one.checked) for one in rows(watched)] == [("5m", None), ("24h", None)]


def test_looks_are_shown_before_and_after(watched: Any) -> None:
    """With the playbook, and with the run, for people and for programs."""
    assert "looked at again after 5m, 24h" in watched.call("show", "test").stdout
    run = watched.runs()[0].id
    shown = json.loads(watched.call("runs", "show", run, "--json").stdout)["watches"]
    assert [(one["after"], one["held"]) for one in shown] == [("5m", None), ("24h", None)]


def test_an_effect_that_holds_is_recorded(watched: Any) -> None:
    """The next start of anything looks."""
    pass_time(watched)

    assert watched.run("next").exit_code == 0

    assert [(one.held, one.detail) for one in rows(watched)] == [(1, "it holds")] * 2


def test_what_something_undid_is_reported(watched: Any) -> None:
    """In the exit code, the notices, and the audit log; each look once."""
    (tenant,) = watched.simulator._tenants.values()
    tenant.change_user(watched.user(), {"accountEnabled": True}, app="sync", request="r")
    pass_time(watched)

    ended = watched.run("next")

    assert ended.exit_code == 1
    name = watched.user()["userPrincipalName"]
    assert any(f"m365.block_sign_in on {name}, made" in text for text in ended.notices.values())
    logged = [json.loads(line) for line in watched.call("audit", "export").stdout.splitlines()]
    looks = [json.loads(one["body"]) for one in logged if one["kind"] == "watch"]
    assert [one["held"] for one in looks] == [False, False]
    assert watched.run("next").exit_code == 0


def test_what_we_took_back_ourselves_is_no_alarm(watched: Any) -> None:
    """An undo is named as the reason."""
    watched.call("undo", watched.runs()[0].id)
    undo = watched.runs()[0].id
    pass_time(watched)

    assert watched.run("next").exit_code == 0
    assert [one.detail for one in rows(watched)] == [f"taken back by {undo}"] * 2


def test_a_target_that_cannot_be_read_is_looked_at_again(watched: Any) -> None:
    """A minute later, a few times; then it is recorded as not known."""
    (tenant,) = watched.simulator._tenants.values()
    tenant.users.remove(watched.user()["id"])
    watched.write({"uses": "std.stop", "with": {"reason": "nothing"}}, name="next")

    for attempt in range(1, 6):
        pass_time(watched)
        watched.run("next")
        assert {one.attempts for one in rows(watched)} == {attempt}
        assert {one.checked is None for one in rows(watched)} == {attempt < 5}

    assert all("it cannot be read" in one.detail and one.held is None for one in rows(watched))


def test_a_connection_that_became_another_tenants_is_not_asked(watched: Any) -> None:
    """Its users are other people: what was changed can neither hold nor fail to hold there."""
    database = watched.database()
    try:
        with database.write() as connection:
            connection.execute(sa.update(effect).values(tenant="the-tenant-before"))
    finally:
        database.close()
    pass_time(watched)

    assert watched.run("next").exit_code == 0

    detail = "contoso is the connection of another tenant now"
    assert [(one.held, one.detail) for one in rows(watched)] == [(None, detail)] * 2


def test_a_refused_effect_plants_nothing(bench: Any, block: Callable[..., Any]) -> None:
    """There is nothing that could hold."""
    bench.configure(guardrails={"read_only": True})
    bench.write(block(bench.user()["id"], verify={"after": ["5m"]}))

    bench.run()

    assert rows(bench) == []
