"""std.gaps: the trigger that tells when something is missing."""

import json
from datetime import datetime

from counterplay import Context, JsonObject, Page, PermanentError, PollTrigger

_PAGE = 500


class Gaps(PollTrigger):
    """Emit an event for each new gap of the ledger, and for each unit that is set aside.

    `{"id", "kind": "gap" | "quarantined" | "lost", "feed", "tenant", "playbook", "unit", "from", "to",
    "cause", "at"}`: of a gap the range and the playbook that misses it, of a unit its name and when it was
    made available. A gap that only gets longer is no new one. Feeds of this trigger itself are left out.

    Cursor:
        The number of the last entry that was told.
    Delivery:
        At least once; `id` is the same each time.
    Limits:
        It knows the feeds of its own store. What comes up while `--once` ends is told by the next run.
    """

    name = "gaps"
    id_field = "id"
    time_field = "at"

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        if context.losses is None:
            raise PermanentError(
                "there is no ledger to read here", hint="run the playbook, or give it an event with --event"
            )
        last = int(cursor["last"]) if cursor is not None else 0
        found = context.losses.after(last, since, _PAGE)
        events = tuple(
            json.dumps(event).encode() for _, event in found if not str(event["feed"]).startswith("std.gaps")
        )
        last = found[-1][0] if found else last
        return Page(events, {"last": last}, more=len(found) == _PAGE)
