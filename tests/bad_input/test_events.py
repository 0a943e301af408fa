"""Events that are none: refused before anything runs when they come by hand, kept aside when in a blob."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counterplay_sim.testing import Simulator

GREET = """\
name: greet
description: Writes each event to a file.
trigger: {uses: std.manual}
sinks:
  - uses: std.jsonl
    with: {path: out.jsonl}
"""
COLLECT = """\
name: collect
description: Forwards one content type.
trigger:
  uses: m365.audit_log
  connection: contoso
  with: {content_types: [Audit.General]}
sinks:
  - {uses: intake.forward, connection: siem}
"""
ONE_OBJECT = "every event is one JSON object"

NO_EVENTS = {
    "nothing": (b" \n", "stdin: there is no event in it; give a JSON object, an array or lines"),
    "a number": (b"5", f"stdin: event 1: not a JSON object; {ONE_OBJECT}"),
    "a text": (b'"x"', f"stdin: event 1: not a JSON object; {ONE_OBJECT}"),
    "null": (b"null", f"stdin: event 1: not a JSON object; {ONE_OBJECT}"),
    "a number in an array": (b'[{"a": 1}, 2]', f"stdin: event 2: not a JSON object; {ONE_OBJECT}"),
    "a number in lines": (b'{"a": 1}\n\n2\n', f"stdin: event 2: not a JSON object; {ONE_OBJECT}"),
    "half an object": (
        b'{"a":',
        f"stdin: event 1: invalid JSON: Expecting value: line 1 column 6 (char 5); {ONE_OBJECT}",
    ),
    "half an array": (
        b'[{"a": 1},',
        f"stdin: event 2: the unit is cut off: its closing bracket is missing; {ONE_OBJECT}",
    ),
    "objects without brackets": (
        b'{"a": 1}, {"b": 2}',
        f"stdin: event 1: invalid JSON: Extra data: line 1 column 9 (char 8); {ONE_OBJECT}",
    ),
    "invalid UTF-8": (
        b'[{"a": "\xff"}, {"b": 1}]',
        f"stdin: event 1: invalid UTF-8 at byte 7; {ONE_OBJECT}",
    ),
}


@pytest.mark.parametrize("what", NO_EVENTS)
def test_what_is_no_event_is_refused_as_a_whole(desk: Any, what: str) -> None:
    """The place in the input and the reason; nothing of it is taken, and the right input then works."""
    given, line = NO_EVENTS[what]
    desk.write("playbooks/greet.yaml", GREET)

    said = desk.playbook("run", "greet", "--event", "-", stdin=given)

    assert (said.code, said.out, said.err) == (2, "", line + "\n")
    assert not (desk.root / ".counterplay").exists()
    assert desk.playbook("run", "greet", "--event", "-", stdin=b'[{"a": 1}, {"b": 2}]').code == 0
    assert (desk.root / "out.jsonl").read_text() == '{"a": 1}\n{"b": 2}\n'


@pytest.mark.parametrize("given", [b"[" * 100_000, b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_nesting_without_end_is_no_traceback(desk: Any, given: bytes) -> None:
    """What would overflow the decoder's stack is told like any other broken JSON."""
    desk.write("playbooks/greet.yaml", GREET)

    said = desk.playbook("run", "greet", "--event", "-", stdin=given)

    assert said.code == 2
    assert said.err.startswith("stdin: event 1: invalid JSON: maximum recursion depth exceeded")
    assert said.err.endswith(f"; {ONE_OBJECT}\n")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (b'{"a": 1}', '{"a": 1}\n'),
        (b'\xef\xbb\xbf{"a": 1}\r\n', '{"a": 1}\n'),
        (b'[{"a":1},{"b":2}]', '{"a":1}\n{"b":2}\n'),
        (b'{"a":1}\n\n{"b":2}\n', '{"a":1}\n{"b":2}\n'),
        (b'{"cut emoji": "\\ud83d"}', '{"cut emoji": "\\ud83d"}\n'),
    ],
)
def test_an_object_an_array_and_lines_are_events(desk: Any, given: bytes, written: str) -> None:
    """All forms are taken from stdin and from a file alike, and arrive as the bytes that were given."""
    desk.write("playbooks/greet.yaml", GREET)
    desk.write("events.json", given)

    assert desk.playbook("run", "greet", "--event", "events.json").code == 0
    assert desk.playbook("run", "greet", "--event", "-", stdin=given).code == 0
    assert (desk.root / "out.jsonl").read_text() == written * 2


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere.json", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_of_events_that_cannot_be_read_is_named(desk: Any, name: str, reason: str) -> None:
    """The file, what the system says of it, and what to give."""
    desk.write("playbooks/greet.yaml", GREET)

    said = desk.playbook("run", "greet", "--event", name)

    assert (said.code, said.err) == (
        2,
        f"{name}: cannot read the events: {reason}; give a file, or - for stdin\n",
    )


def with_half_an_emoji(body: bytes) -> bytes:
    return body[:-1] + b',"Note":"\\ud83d"}'


def with_an_invalid_byte(body: bytes) -> bytes:
    return body[:-1] + b',"Note":"\xff"}'


def without_braces(body: bytes) -> bytes:
    return b"4711"


def test_a_lone_surrogate_in_a_blob_arrives_as_it_is(
    desk: Any, tmp_path: Path, tenant: Simulator, connect: Any, tampered: Callable[..., str]
) -> None:
    """Half of a surrogate pair is valid JSON: the event is delivered once, byte for byte."""
    tenant.close()
    tampered("Audit.General", with_half_an_emoji)
    desk.write("playbooks/collect.yaml", COLLECT)
    with Simulator(tmp_path / "tenant") as changed:
        connect(changed)
        said = desk.playbook("run", "collect", "--once", "--json")
        arrived = changed.oracle().verdict().events

    assert said.code == 0
    assert said.data["figures"]["delivered"] == arrived.exact > 0
    assert not arrived.altered
    assert not arrived.duplicated


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_an_invalid_byte, r"invalid UTF-8 at byte"),
        (without_braces, "not a JSON object"),
    ],
)
def test_one_broken_event_of_a_blob_is_kept_aside_and_all_others_arrive(
    desk: Any,
    tmp_path: Path,
    tenant: Simulator,
    connect: Any,
    tampered: Callable[..., str],
    change: Callable[[bytes], bytes],
    reason: str,
) -> None:
    """It is counted and kept with its bytes and the reason; the next run neither repeats nor loses any."""
    tenant.close()
    broken = tampered("Audit.General", change)
    desk.write("playbooks/collect.yaml", COLLECT)
    with Simulator(tmp_path / "tenant") as changed:
        connect(changed)
        said = desk.playbook("run", "collect", "--once", "--json")
        again = desk.playbook("run", "collect", "--once", "--json")
        arrived = changed.oracle().verdict().events
        secret = changed.m365_settings()["client_secret"]

    assert said.code == 1
    assert said.data["figures"]["broken"] == 1
    assert (
        said.data["figures"]["delivered"]
        == arrived.exact
        == said.data["figures"]["collected"] - 1 - (said.data["figures"].get("duplicates", 0))
    )
    assert broken in arrived.missing
    assert not arrived.duplicated
    assert not arrived.altered
    assert again.code == 0
    assert "delivered" not in again.data["figures"]
    why, body = kept(desk.root)
    assert why.startswith(reason)
    assert body[-6:] == change(b'{"Id":"x"}')[-6:]
    assert desk.leaks(secret) == []


def kept(root: Path) -> tuple[str, bytes]:
    import sqlite3

    database = sqlite3.connect(root / ".counterplay" / "state.db")
    try:
        [(reason, raw)] = database.execute("SELECT reason, body FROM cp_dead_letter").fetchall()
    finally:
        database.close()
    return reason, bytes(raw)
