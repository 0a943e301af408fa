"""Values that are too large for their rows: kept once by their hash, and referred to.

A reference is `artifact:` and a hash. No JSON text begins so, so nothing that a service or an event says
can pass for one.
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from counterplay.errors import StateError
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import artifact, artifact_use

INLINE_RESULT = 256 * 1024
INLINE_EVENT = 1024 * 1024
"""Bytes of a step's result and of an event in a run that stay in their row."""
_MARK = b"artifact:"


def put(connection: sa.Connection, run_id: str, value: bytes, limit: int) -> bytes:
    """What the row is to hold: the value itself, or a reference to it. In the caller's transaction."""
    if len(value) <= limit:
        return value
    digest = hashlib.sha256(value).hexdigest()
    connection.execute(insert_or_ignore(connection, artifact), {"hash": digest, "body": value})
    use = {"hash": digest, "run_id": run_id.partition("/")[0]}
    connection.execute(insert_or_ignore(connection, artifact_use), use)
    return _MARK + digest.encode()


def got(connection: sa.Connection, kept: bytes) -> bytes:
    """The value that a row holds or refers to. StateError: it is not what was put there."""
    if not kept.startswith(_MARK):
        return kept
    digest = kept.removeprefix(_MARK).decode()
    body = connection.execute(sa.select(artifact.c.body).where(artifact.c.hash == digest)).scalar()
    if body is None or hashlib.sha256(body).hexdigest() != digest:
        raise StateError(
            f"the large value {digest[:12]} is {'missing' if body is None else 'damaged'}",
            hint="restore the store from a backup",
        )
    return bytes(body)
