"""The events that a playbook's source has now, read beside the ledger: for a plan, which keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from counterplay.clock import now
from counterplay.errors import ConfigError, CounterplayError
from counterplay.events import Event, JsonObject
from counterplay.language import Labels, Playbook, with_defaults
from counterplay.modules import Connection, Context, FeedTrigger, PollTrigger, Trigger
from counterplay.runtime import decoding, windows
from counterplay.runtime.opening import Opener
from counterplay.runtime.session import _expanded


def connections_of(opener: Opener, playbook: Playbook, renames: JsonObject) -> list[Connection | None]:
    """The connections that a playbook's trigger reads from; [None] when it needs none."""
    use = playbook.trigger
    kind = opener.host.module(use.uses).cls.connection
    if kind is None:
        return [None]
    if isinstance(use.connection, Labels):
        names = list(opener.workspace.labelled(use.connection.labels, kind))
    elif use.connection is None:
        raise ConfigError(f"the trigger {use.uses} needs a connection", hint="write `connection:`")
    else:
        names = [renames.get(use.connection, use.connection)]
    return [opener.connection(name, kind) for name in names]


def live_events(
    opener: Opener, playbook: Playbook, inputs: JsonObject, connection: Connection | None
) -> Iterator[Event]:
    """The source's events from its look-back on, the newest unit first. Nothing is kept or acknowledged."""
    info = opener.host.module(playbook.trigger.uses)
    arguments = with_defaults(info.schema, playbook.trigger.template.render({"inputs": inputs}))
    meta = {"connection": connection.label, "tenant": connection.tenant} if connection is not None else {}
    with opener.planning_wire(connection, writes=False) as http:
        context = Context(http=http, connection=connection)
        for part in _expanded(info.schema, arguments):
            trigger = info.cls(part)
            assert isinstance(trigger, Trigger)
            if isinstance(trigger, FeedTrigger):
                yield from _of_feed(trigger, context, meta)
            elif isinstance(trigger, PollTrigger):
                yield from _of_poll(trigger, context, meta)
            else:
                raise ConfigError(
                    f"{playbook.trigger.uses} has no events that could be read now",
                    hint="give one with --event FILE",
                )


def _of_feed(trigger: FeedTrigger, context: Context, meta: JsonObject) -> Iterator[Event]:
    moment = now()
    since = moment - trigger.look_back
    for window in reversed(windows.tiles(_readable(trigger, since, moment), moment, trigger.tile)):
        units = sorted(
            trigger.discover(context, window.start, window.end),
            key=lambda unit: unit.created or moment,
            reverse=True,
        )
        for unit in units:
            body = bytes(trigger.fetch(context, unit))
            parts = trigger.split(body)
            found = (
                decoding.elements(body, decoding.members_of(trigger))
                if parts is None
                else decoding.of_lines(iter(parts))
            )
            about = {**meta, "unit": unit.id, **trigger.meta(unit)}
            for position, raw in found.events:
                yield Event(raw, about, position=position)


def _readable(trigger: FeedTrigger, since: datetime, moment: datetime) -> datetime:
    oldest = windows.readable_from(moment, trigger.retention)
    return since if oldest is None else max(since, oldest)


def _of_poll(trigger: PollTrigger, context: Context, meta: JsonObject) -> Iterator[Event]:
    cursor: JsonObject | None = None
    since = now() - trigger.look_back
    while True:
        page = trigger.poll(context, cursor, since)
        for position, raw in enumerate(page.events):
            yield Event(raw, meta, position=position)
        if not page.more:
            return
        if page.cursor == cursor:
            raise CounterplayError("the source gives the same page again and again")
        cursor = page.cursor
