"""One archive about one run: everything that was recorded, with the proof that it was not changed since.

A zip file with JSON documents, a manifest of their hashes, and the part of the audit log from the run's
first entry to the end: the run's own entries whole, the others as links of the chain, without their
content. `check` needs the file alone.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.errors import ConfigError
from counterplay.events import Event, JsonObject
from counterplay.store.database import Database
from counterplay.store.runs import RunStore, StoredEffect, StoredRun
from counterplay.store.tables import effect, metadata, run

VERSION = 1
MANIFEST = "manifest.json"
_LIMIT = 500_000_000
_README = """\
Evidence of one run of counterplay.

manifest.json   the hash (SHA-256) of every other file
run.json        the run and the runs inside it; playbook.json what it was told; event.json what started it
plan.json       the plan that was approved for it, when there was one
steps.json      its steps; effects.json what it changed: the state before and after, the requests, the outcome
approvals.json  what people were asked and answered; receipts.json what receivers confirmed
audit.jsonl     the audit log from the run's first entry on. The `hash` of an entry is that of the JSON array
                [seq, at, kind, who, run_id, body, previous] as Python's json.dumps(ensure_ascii=False)
                writes it; `previous` is the hash of the entry before. Entries of other runs show links only.

Check it with: playbook evidence --verify FILE
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of an archive found; nothing in `flaws` means that all of it holds."""

    run: str
    files: int
    entries: int
    head: str
    flaws: tuple[str, ...]


def write(database: Database, found: StoredRun, target: Path, by: str) -> JsonObject:
    """Write the archive of a run. Returns its manifest. ConfigError: the file cannot be written."""
    documents = _documents(database, found)
    chain = _chain(database, found.id)
    documents["audit.jsonl"] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in chain).encode()
    documents["README.txt"] = _README.encode()
    manifest: JsonObject = {
        "version": VERSION,
        "run": found.id,
        "playbook": found.playbook,
        "made": to_text(now()),
        "by": by,
        "head": chain[-1]["hash"] if chain else audit.GENESIS,
        "files": {name: hashlib.sha256(body).hexdigest() for name, body in sorted(documents.items())},
    }
    text = _json(manifest)
    try:
        with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MANIFEST, text)
            for name, body in sorted(documents.items()):
                archive.writestr(name, body)
    except FileExistsError as error:
        raise ConfigError(
            "there is such a file already", path=target, hint="choose another --output"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", path=target) from error
    audit.record(
        database,
        "command",
        {"command": "evidence", "manifest": hashlib.sha256(text).hexdigest()},
        run_id=found.id,
        who=by,
    )
    return manifest


def check(path: Path) -> Checked:
    """Check an archive by itself. ConfigError: it is no such archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(one.file_size for one in archive.infolist()) > _LIMIT:
                raise ConfigError("it unpacks to more than 500 MB", path=path)
            names = archive.namelist()
            bodies = {name: archive.read(name) for name in names}
        manifest = json.loads(bodies[MANIFEST])
        hashes, head, identity = dict(manifest["files"]), str(manifest["head"]), str(manifest["run"])
    except OSError as error:
        raise ConfigError(f"cannot read the archive: {error.strerror or error}", path=path) from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ConfigError("this is no evidence of a run", path=path) from error
    flaws: list[str] = []
    if len(set(names)) != len(names):
        flaws.append("a file is in it twice")
    for name in sorted({*hashes, *bodies} - {MANIFEST}):
        if name not in bodies:
            flaws.append(f"{name} is missing")
        elif name not in hashes:
            flaws.append(f"{name} is not in the manifest")
        elif hashlib.sha256(bodies[name]).hexdigest() != hashes[name]:
            flaws.append(f"{name} was changed")
    try:
        lines = [json.loads(line) for line in bodies.get("audit.jsonl", b"").splitlines()]
        flaws += _chain_flaws(lines, head, identity)
        flaws += _effect_flaws(lines, json.loads(bodies["effects.json"]))
        flaws += _receipt_flaws(lines, json.loads(bodies["receipts.json"]))
    except (KeyError, ValueError, TypeError) as error:
        flaws.append(f"the audit log in it cannot be read: {error}")
        lines = []
    return Checked(identity, len(hashes), len(lines), head, tuple(flaws))


def _documents(database: Database, found: StoredRun) -> dict[str, bytes]:
    store = RunStore(database)
    with database.read() as connection:
        inside = sa.or_(run.c.id == found.id, run.c.id.startswith(f"{found.id}/", autoescape=True))
        identities = list(connection.execute(sa.select(run.c.id).where(inside).order_by(run.c.id)).scalars())
        approvals = _rows(connection, "cp_approval", "run_id", identities)
        answers = _rows(connection, "cp_answer", "approval_id", [one["id"] for one in approvals])
        watches = _rows(connection, "cp_watch", "run_id", identities)
    runs = [one for one in (store.get(identity) for identity in identities) if one is not None]
    steps = {one.id: [asdict(each) for each in store.steps(one.id)] for one in runs}
    effects = [each for one in runs for each in store.effects(one.id)]
    receipts = {
        f"{identity} {each['step_id']}": each["result"]
        for identity, found_steps in steps.items()
        for each in found_steps
        if isinstance(each["result"], dict) and each["result"].keys() == {"receipts"}  # a sink's
    }
    documents: dict[str, Any] = {
        "run.json": [_about(one) for one in runs],
        "playbook.json": {one.id: one.document for one in runs},
        "event.json": Event(found.event).data,
        "steps.json": steps,
        "effects.json": [{**asdict(one), "after": _after(database, one)} for one in effects],
        "approvals.json": [
            {**one, "answers": [each for each in answers if each["approval_id"] == one["id"]]}
            for one in approvals
        ],
        "receipts.json": receipts,
        "watches.json": watches,
    }
    if "_plan" in found.meta:
        documents["plan.json"] = found.meta["_plan"]
    return {name: _json(document) for name, document in documents.items()}


def _rows(connection: sa.Connection, table: str, column: str, values: Sequence[str]) -> list[JsonObject]:
    """Rows of a table of ours as they stand."""
    known = metadata.tables[table]
    rows = connection.execute(sa.select(known).where(known.c[column].in_(values)))
    return [dict(row._mapping) for row in rows]


def _after(database: Database, one: StoredEffect) -> Any:
    with database.read() as connection:
        text = connection.execute(
            sa.select(effect.c.after).where(effect.c.run_id == one.run_id, effect.c.step_id == one.step_id)
        ).scalar()
    return None if text is None else json.loads(text)


def _about(one: StoredRun) -> JsonObject:
    names = ("id", "tenant", "playbook", "inputs", "connections", "status", "outcome", "error")
    times = ("created", "started", "ended")
    meta = {name: value for name, value in one.meta.items() if not name.startswith("_")}
    return {**{name: getattr(one, name) for name in (*names, *times)}, "meta": meta}


def _chain(database: Database, identity: str) -> list[JsonObject]:
    """The log from the run's first entry on; entries that are not about it without their content."""
    lines: list[JsonObject] = []
    for one in audit.entries(database):
        own = one.run_id is not None and (one.run_id == identity or one.run_id.startswith(f"{identity}/"))
        if own:
            lines.append(one.to_document())
        elif lines:
            lines.append({"seq": one.seq, "previous": one.previous, "hash": one.hash})
    return lines


def _chain_flaws(lines: Sequence[Mapping[str, Any]], head: str, identity: str) -> list[str]:
    flaws: list[str] = []
    for before, one in zip([None, *lines], lines, strict=False):
        if before is not None and (one["previous"], one["seq"]) != (before["hash"], before["seq"] + 1):
            flaws.append(f"audit entry {one['seq']} does not follow the one before it")
        if "body" in one:
            if audit.Entry(**one).computed() != one["hash"]:
                flaws.append(f"audit entry {one['seq']}: its content was changed")
            about = one["run_id"] or ""
            if about != identity and not about.startswith(f"{identity}/"):
                flaws.append(f"audit entry {one['seq']} is about another run")
    if lines and lines[-1]["hash"] != head:
        flaws.append("the end of the audit log is not the one that the manifest names")
    return flaws


def _effect_flaws(lines: Sequence[Mapping[str, Any]], effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each effect that ended stands in the chain with the same content."""
    logged: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in lines:
        if one.get("kind") in ("effect", "refusal"):
            body = json.loads(one["body"])
            logged[one["run_id"], body["step"]] = body
    flaws: list[str] = []
    for each in effects:
        if each["status"] == "intended":
            continue
        known = logged.get((each["run_id"], each["step_id"]))
        same = ("uses", "target", "before", "after", "calls", "status", "result", "error")
        if known is None:
            flaws.append(f"the effect of {each['step_id']} is not in the audit log")
        elif any(known[name] != each[name] for name in same):
            flaws.append(f"the effect of {each['step_id']} is another one than the audit log holds")
    return flaws


def _receipt_flaws(
    lines: Sequence[Mapping[str, Any]], receipts: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What a receiver confirmed is what stands in the chain; of a delivery made again, the last one."""
    logged: dict[str, Any] = {}
    for one in lines:
        if one.get("kind") == "delivery":
            body = json.loads(one["body"])
            logged[f"{one['run_id']} {body['step']}"] = body["receipts"]
    flaws: list[str] = []
    for name, given in receipts.items():
        if name not in logged:
            flaws.append(f"the receipts of {name} are not in the audit log")
        elif logged[name] != given["receipts"]:
            flaws.append(f"the receipts of {name} are others than the audit log holds")
    return flaws


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True, default=str) + "\n").encode(
        "utf-8", "backslashreplace"
    )
