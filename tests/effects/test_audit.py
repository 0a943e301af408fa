"""The audit log: what stands in it, and that nothing of it can be changed unseen."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from counterplay import audit
from counterplay.store.runs import RunStore


@contextmanager
def tampering(bench: Any) -> Iterator[sqlite3.Connection]:
    """The state file in the hands of somebody who may write it."""
    with closing(sqlite3.connect(bench.root / ".counterplay" / "state.db", isolation_level=None)) as database:
        database.execute("DROP TRIGGER cp_audit_no_update")
        database.execute("DROP TRIGGER cp_audit_no_delete")
        yield database


@pytest.fixture
def ran(bench: Any, block: Callable[..., Any]) -> Any:
    """Two runs that blocked somebody."""
    bench.write(block("{{ event.user }}"))
    for number in (2, 3):
        assert bench.run(event={"user": bench.user(number)["id"]}).exit_code == 0
    return bench


def entries(bench: Any) -> list[dict[str, Any]]:
    """The log as it is exported."""
    return [json.loads(line) for line in bench.call("audit", "export").stdout.splitlines()]


def test_effects_commands_and_configuration_are_logged(ran: Any) -> None:
    """A second start with the same configuration logs no change; an effect holds what was sent."""
    found = entries(ran)

    assert [one["kind"] for one in found] == ["configuration", "command", "effect", "command", "effect"]
    effect = json.loads(found[2]["body"])
    assert effect["status"] == "done"
    assert effect["before"]["accountEnabled"] is True
    assert effect["after"]["accountEnabled"] is False
    assert effect["calls"][0]["body"] == {"accountEnabled": False}
    assert all("@" in one["who"] for one in found)


def test_what_a_sink_confirmed_is_logged_and_stays_as_it_was(bench: Any, block: Callable[..., Any]) -> None:
    """An entry for each delivery: the hash of the record and its receipts, in the chain as effects are."""
    sink = {"uses": "intake.forward", "connection": "siem"}
    bench.write(block("{{ event.user }}"), {"id": "early", **sink}, sinks=[sink])
    assert bench.run(event={"user": bench.user(2)["id"]}).exit_code == 0
    (run,) = bench.runs()

    found = [one for one in entries(bench) if one["kind"] == "delivery"]

    bodies = [json.loads(one["body"]) for one in found]
    assert [(one["step"], one["uses"], one["refused"]) for one in bodies] == [
        ("early", "intake.forward", None),
        ("sink:1", "intake.forward", None),
    ]
    assert {one["run_id"] for one in found} == {run.id}
    with closing(bench.database()) as database:
        results = {one.step_id: one.result for one in RunStore(database).steps(run.id)}
    assert [{"receipts": one["receipts"]} for one in bodies] == [results["early"], results["sink:1"]]
    assert all(len(one["receipts"]) == 1 and len(one["sha256"]) == 64 for one in bodies)
    assert bench.call("audit", "verify").exit_code == 0

    with tampering(bench) as database:
        database.execute(
            "UPDATE cp_audit SET body=replace(body, ?, 'x') WHERE kind='delivery'",
            (bodies[0]["receipts"][0],),
        )
    assert bench.call("audit", "verify").exit_code == 1


def test_a_change_of_the_configuration_is_logged_by_name_without_secrets(ran: Any) -> None:
    """Which part changed; never the value of a secret."""
    secret = ran.simulator.info()["m365.tenant"]["client_secret"]
    ran.configure(guardrails={"protected_users": ["a@contoso.example"]})
    ran.run(event={"user": ran.user(4)["id"]})

    changed = [one for one in entries(ran) if one["kind"] == "configuration"][-1]

    body = json.loads(changed["body"])
    assert body["added"] == ["guardrails.protected_users"]
    assert body["guardrails"] == {"protected_users": ["a@contoso.example"]}
    assert secret not in json.dumps(entries(ran))


def test_a_refusal_is_logged(bench: Any, block: Callable[..., Any]) -> None:
    """What a guard refused stands there with the reason."""
    bench.configure(guardrails={"read_only": True})
    bench.write(block(bench.user()["id"]))
    bench.run()

    refusal = next(one for one in entries(bench) if one["kind"] == "refusal")

    assert "read_only" in json.loads(refusal["body"])["error"]


def test_the_whole_log_holds(ran: Any) -> None:
    """And the hash at its end is the one of the last entry."""
    result = ran.call("audit", "verify", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"entries": 5, "head": entries(ran)[-1]["hash"], "flaws": []}


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "UPDATE cp_audit SET body = replace(body, 'done', 'gone') WHERE seq = 3",
            "entry 3: its content was changed",
        ),
        ("UPDATE cp_audit SET who = 'nobody@nowhere' WHERE seq = 2", "entry 2: its content was changed"),
        ("DELETE FROM cp_audit WHERE seq = 3", "entry 3: entries 3 to 3 are missing"),
        ("DELETE FROM cp_audit WHERE seq = 5", "entry 5: the end of the log is missing or was replaced"),
        (
            "UPDATE cp_audit SET previous = hash WHERE seq = 4",
            "entry 4: it does not follow the entry before it",
        ),
    ],
)
def test_tampering_is_found(ran: Any, statement: str, reason: str) -> None:
    """Whatever is changed, the check says where."""
    with tampering(ran) as database:
        database.execute(statement)

    result = ran.call("audit", "verify")

    assert result.exit_code == 1
    assert reason in result.stdout


def test_an_entry_that_was_written_anew_with_its_hash_breaks_the_chain(ran: Any) -> None:
    """Who recomputes one hash has to recompute all that follow, and the head that somebody noted."""
    noted = json.loads(ran.call("audit", "verify", "--json").stdout)["head"]
    found = [audit.Entry(**one) for one in entries(ran)]
    with tampering(ran) as database:
        previous = found[1].hash
        for one in found[2:]:
            body = one.body.replace("done", "gone")
            forged = audit.Entry(one.seq, one.at, one.kind, one.who, one.run_id, body, previous, "")
            database.execute(
                "UPDATE cp_audit SET body = ?, previous = ?, hash = ? WHERE seq = ?",
                (body, previous, forged.computed(), one.seq),
            )
            if one.seq == 3:
                assert "entry 4: it does not follow" in ran.call("audit", "verify").stdout
            previous = forged.computed()
        database.execute("UPDATE cp_audit_head SET hash = ?", (previous,))

    assert ran.call("audit", "verify").exit_code == 0
    result = ran.call("audit", "verify", "--head", noted)
    assert result.exit_code == 1
    assert f"no entry has the hash {noted}" in result.stdout


def test_rows_are_not_changed_by_mistake(ran: Any) -> None:
    """The file itself refuses an UPDATE or a DELETE."""
    with closing(sqlite3.connect(ran.root / ".counterplay" / "state.db")) as database:
        for statement in ("UPDATE cp_audit SET who = ''", "DELETE FROM cp_audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)


def test_an_exported_log_is_checked_without_the_store(ran: Any, tmp_path: Path) -> None:
    """A changed line is found in the file, too."""
    file = tmp_path / "audit.jsonl"
    ran.call("audit", "export", "--output", str(file))
    assert ran.call("audit", "verify", "--file", str(file)).exit_code == 0

    file.write_text(file.read_text().replace("m365.block_sign_in", "m365.allow_sign_in"))

    assert ran.call("audit", "verify", "--file", str(file)).exit_code == 1


def test_cancelling_and_retrying_are_logged_with_who_did_it(bench: Any) -> None:
    """What people do to runs from outside."""
    bench.write({"id": "ask", "uses": "std.approval", "with": {"question": "Yes?"}})
    assert bench.run().exit_code == 3
    identity = bench.runs()[0].id
    assert bench.call("runs", "cancel", identity).exit_code == 0

    logged = [one for one in entries(bench) if one["run_id"] == identity]

    assert [one["kind"] for one in logged] == ["question", "command"]
    assert json.loads(logged[1]["body"]) == {"command": "cancel"}
    assert "@" in logged[1]["who"]
