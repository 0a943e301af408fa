"""The audit log: who did what, in a chain of hashes in which nothing can be changed unseen.

Each entry's hash covers its own content and the hash of the entry before it. Whoever changes, removes
or inserts one breaks the chain from there on. Cutting off the end shows only against a hash that was
noted elsewhere: `playbook audit verify` prints it, and `--head HASH` compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.events import JsonObject
from counterplay.people import this_person
from counterplay.store.database import Database, storable
from counterplay.store.tables import audit, audit_head

Kind = Literal["effect", "delivery", "refusal", "question", "approval", "configuration", "command", "watch"]
GENESIS = "0" * 64

#: The end of the log, to append to; nobody else appends until the transaction ends.
HEAD = sa.select(audit_head.c.seq, audit_head.c.hash).where(audit_head.c.id == 1).with_for_update()
_APPEND = audit.insert()
_MOVE = (
    sa.update(audit_head).where(audit_head.c.id == 1).values(seq=sa.bindparam("to"), hash=sa.bindparam("as"))
)
#: Both in one trip to a server.
_APPEND_AND_MOVE = _MOVE.add_cte(
    _APPEND.values({one.name: sa.bindparam(one.name, type_=one.type) for one in audit.columns}).cte("entry")
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. `body` is JSON text, as it was hashed; it holds no secrets."""

    seq: int
    at: str
    kind: str
    who: str
    run_id: str | None
    body: str
    previous: str
    hash: str

    def computed(self) -> str:
        """The hash that its content gives."""
        return _hash(self.seq, self.at, self.kind, self.who, self.run_id, self.body, self.previous)

    def to_document(self) -> JsonObject:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with the chain, and at which entry."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of a check: how many entries, the hash at the end, and what is wrong."""

    entries: int
    head: str
    flaws: tuple[Flaw, ...]


def append(
    connection: sa.Connection,
    kind: Kind,
    body: Mapping[str, Any],
    *,
    run_id: str | None = None,
    who: str | None = None,
    end: tuple[int, str] | None = None,
) -> str:
    """Add an entry in the caller's transaction: it is there if, and only if, the rest of it is.

    The caller masks secrets. `end` is what `HEAD` gave in this transaction. Returns the entry's hash.
    """
    last, previous = end or connection.execute(HEAD).one()
    seq, at = last + 1, to_text(now())
    text = storable(json.dumps(body, sort_keys=True, ensure_ascii=False, default=str))
    person = storable(who or this_person())
    digest = _hash(seq, at, kind, person, run_id, text, previous)
    entry = {
        "seq": seq,
        "at": at,
        "kind": kind,
        "who": person,
        "run_id": run_id,
        "body": text,
        "previous": previous,
        "hash": digest,
    }
    if connection.dialect.name == "postgresql":
        connection.execute(_APPEND_AND_MOVE, {**entry, "to": seq, "as": digest})
    else:
        connection.execute(_APPEND, entry)
        connection.execute(_MOVE, {"to": seq, "as": digest})
    return digest


def effect_ended(connection: sa.Connection, row: sa.Row[Any], end: tuple[int, str] | None = None) -> None:
    """Add what the journal's row says of an effect that came to its end, in the same transaction."""
    body = {
        "step": row.step_id,
        "uses": row.uses,
        "tenant": row.tenant,
        "connection": row.connection,
        "target": row.target,
        "subject": row.subject,
        "arguments": json.loads(row.arguments),
        "before": json.loads(row.before),
        "after": None if row.after is None else json.loads(row.after),
        "calls": json.loads(row.calls),
        "status": row.status,
        "error": row.error,
        "result": None if row.result is None else json.loads(row.result),
        "verified": None if row.verified is None else bool(row.verified),
        "settled": row.settled,
        "intended": row.at,
    }
    kind: Kind = "refusal" if row.status == "refused" else "effect"
    append(connection, kind, body, run_id=row.run_id, end=end)


def entries(database: Database, *, since: int = 1) -> Iterator[Entry]:
    """The log in order, from an entry on."""
    with database.read() as connection:
        rows = connection.execute(sa.select(audit).where(audit.c.seq >= since).order_by(audit.c.seq))
        for row in rows:
            yield Entry(row.seq, row.at, row.kind, row.who, row.run_id, row.body, row.previous, row.hash)


def newest(database: Database, kind: Kind) -> Entry | None:
    """The last entry of a kind."""
    with database.read() as connection:
        row = connection.execute(
            sa.select(audit).where(audit.c.kind == kind).order_by(audit.c.seq.desc()).limit(1)
        ).one_or_none()
    return Entry(*row) if row is not None else None


def verify(database: Database, *, head: str | None = None) -> Verified:
    """Check the whole log of a store. `head` is a hash that was noted before and must still be in it."""
    with database.read() as connection:
        noted = connection.execute(sa.select(audit_head).where(audit_head.c.id == 1)).one_or_none()
        seen = head is None or head == GENESIS
        found = list(entries(database))
    flaws = list(broken(found))
    last = found[-1] if found else None
    end = last.hash if last is not None else GENESIS
    if noted is None or (noted.seq, noted.hash) != (last.seq if last is not None else 0, end):
        flaws.append(
            Flaw(last.seq + 1 if last is not None else 1, "the end of the log is missing or was replaced")
        )
    if not seen and not any(one.hash == head for one in found):
        flaws.append(Flaw(len(found) + 1, f"no entry has the hash {head}: the log was cut or written anew"))
    return Verified(len(found), end, tuple(flaws))


def broken(found: Iterable[Entry], *, after: str = GENESIS, first: int = 1) -> Iterator[Flaw]:
    """What is wrong with a row of entries that begins behind the hash `after`."""
    previous, expected = after, first
    for one in found:
        if one.seq != expected:
            yield Flaw(expected, f"entries {expected} to {one.seq - 1} are missing")
        elif one.previous != previous:
            yield Flaw(one.seq, "it does not follow the entry before it")
        if one.computed() != one.hash:
            yield Flaw(one.seq, "its content was changed")
        previous, expected = one.hash, one.seq + 1


def record(database: Database, kind: Kind, body: Mapping[str, Any], **rest: Any) -> None:
    """Add one entry in a transaction of its own."""
    with database.write() as connection:
        append(connection, kind, body, **rest)


def configured(database: Database, config: Mapping[str, Any], playbooks: Mapping[str, JsonObject]) -> None:
    """Add an entry when the configuration is another one than at the last start: what changed, by name."""
    present = {
        **{
            f"{part}.{name}": _digest(value)
            for part, value in config.items()
            for name, value in _parts(value)
        },
        **{f"playbooks.{name}": _digest(document) for name, document in playbooks.items()},
    }
    last = newest(database, "configuration")
    before: dict[str, str] = json.loads(last.body)["hashes"] if last is not None else {}
    known = {
        key: value for key, value in before.items() if not key.startswith("playbooks.") or key in present
    }
    if known == present:
        return
    hashes = {
        key: value for key, value in {**before, **present}.items() if key in present or key not in known
    }
    body = {
        "added": sorted(set(present) - set(known)),
        "removed": sorted(set(known) - set(present)),
        "changed": sorted(key for key in set(present) & set(known) if present[key] != known[key]),
        "hashes": hashes,
        "guardrails": config.get("guardrails") or {},
    }
    record(database, "configuration", body)


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, Mapping) else [("value", value)]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
