"""The intake's protocol: a batch is one POST with the key and the events as JSON strings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from counterplay import ConfigError, Context, RetryableError
from counterplay_intake.key import IntakeKey

ENVELOPE = 1024  #: room for everything in a body besides the events, the key included
quoted = msgspec.json.Encoder().encode
"""A text as a JSON string, UTF-8."""


def _body(key: str, events: Sequence[bytes]) -> bytes:
    """The envelope around the events, which are copied once: they are half a megabyte."""
    head, tail = b'{"intake_key":%b,"jsons":[' % quoted(key), b"]}"
    if not events:
        return head + tail
    parts = [head + events[0], *events[1:]]
    parts[-1] += tail
    return b",".join(parts)


def _decoded(body: bytes) -> Any:
    """JSON, also as few write it: with a byte order mark, in UTF-16, with NaN or half a surrogate pair.

    To refuse an answer for that would send its batch again and again.
    """
    try:
        return msgspec.json.decode(body)
    except ValueError:
        return json.loads(body)


def send(context: Context, events: Sequence[bytes]) -> list[str]:
    """Send events that are encoded as JSON strings; the ids that the intake gave them, in order.

    RetryableError: the answer does not prove that every event was taken, whatever its status.
    """
    connection = context.connection
    if not isinstance(connection, IntakeKey):
        raise ConfigError("intake.forward needs a connection of kind intake.key")
    body = _body(connection.secret("intake_key"), events)
    response = context.http.bulk(
        "POST",
        f"{connection.url}/batch",
        data=body,
        headers={"Content-Type": "application/json", "Accept": "application/json"},
        repeatable=True,  # delivery is at least once: a lost answer repeats this batch, and this one only
    )
    place = f"the intake {urlsplit(connection.url).netloc}"
    try:
        answer = _decoded(bytes(response.body))
    except (ValueError, RecursionError) as error:
        kind = response.headers.get("Content-Type", "no content type")
        raise RetryableError(
            f"{place} answered {response.status} with something that is not JSON ({kind})",
            status=response.status,
        ) from error
    ids = answer.get("event_ids") if isinstance(answer, dict) else None
    if not isinstance(ids, list):
        raise RetryableError(
            f"{place} answered {response.status} without `event_ids`", status=response.status
        )
    if len(ids) != len(events):
        raise RetryableError(
            f"{place} took {len(ids)} of {len(events)} events: it named no others in `event_ids`",
            status=response.status,
        )
    return ids if set(map(type, ids)) <= {str} else [str(one) for one in ids]
