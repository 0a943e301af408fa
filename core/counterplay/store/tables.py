"""Our own tables. The engine's live in the same database; ours all begin with `cp_`.

Times are RFC 3339 text in UTC with `Z`, so that they sort as they read; JSON is text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()


def _only(where: str) -> dict[str, Any]:
    """For an index over few of a table's rows."""
    return {"sqlite_where": text(where), "postgresql_where": text(where)}


#: `r-…`, and for children `<parent>/<step>/<place>`. The first tables gave it a length, which SQLite keeps
#: on paper and does not look at.
RUN_ID = Text().with_variant(String(64), "sqlite")

#: One source of events as playbooks subscribe to it: (trigger, connection, tenant, feed-key arguments).
#: `swept`: when windows that were accounted for were last listed again, by number of the sweep.
#: `worker` holds the feed, where there are several.
#: `half_read`: the last page that was polled asked for another one; NULL where nobody noted it.
#: `generation` tells apart feeds whose pages cannot be fetched again and whose subscribers came later.
feed = Table(
    "cp_feed",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trigger", Text, nullable=False),
    Column("connection", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("generation", Integer, nullable=False, default=1),
    Column("cursor", Text),
    Column("epoch", Integer, nullable=False, default=0),
    Column("created", String(32), nullable=False),
    Column("swept", Text),
    Column("worker", Text),
    Column("half_read", Boolean),
    UniqueConstraint("trigger", "connection", "tenant", "key", "generation"),
)

#: A playbook's own place in a feed. `mark` is its low-water mark: everything before it is accounted for.
#: `listed` and `seen`: up to where windows were listed for the last time, and at least once.
#: `ended`: since when nothing waits for it any more.
subscription = Table(
    "cp_subscription",
    metadata,
    Column("feed_id", ForeignKey("cp_feed.id"), primary_key=True),
    Column("playbook", Text, primary_key=True),
    Column("since", String(32), nullable=False),
    Column("mark", String(32), nullable=False),
    Column("created", String(32), nullable=False),
    Column("listed", String(32)),
    Column("seen", String(32)),
    Column("ended", String(32)),
)

#: The ledger. `status`: listed, fetched, quarantined, lost. `window` is the tile it was listed in.
#: `retry_at`: when to try it again; also set where a unit came late, below the low-water mark.
#: `duplicates`: `position:owning unit` of the events that other units own, as of `digest`.
unit = Table(
    "cp_unit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("feed_id", ForeignKey("cp_feed.id"), nullable=False),
    Column("unit_key", Text, nullable=False),
    Column("window", String(32)),
    Column("locator", Text, nullable=False),
    Column("created", String(32)),
    Column("expires", String(32)),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("retry_at", String(32)),
    Column("size", Integer),
    Column("digest", String(64)),
    Column("events", Integer),
    Column("broken", Integer, nullable=False, default=0),
    Column("reason", Text),
    Column("listed", String(32), nullable=False),
    Column("fetched", String(32)),
    Column("duplicates", Text),
    UniqueConstraint("feed_id", "unit_key"),
    Index("cp_unit_window", "feed_id", "window"),
    Index("cp_unit_due", "feed_id", "retry_at"),
)

#: The bytes of a unit that cannot be fetched again, until every subscriber acknowledged it.
spool = Table(
    "cp_spool",
    metadata,
    Column("unit_id", ForeignKey("cp_unit.id"), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

#: What became of a unit for one playbook. No row: not acknowledged yet.
acknowledgement = Table(
    "cp_acknowledgement",
    metadata,
    Column("unit_id", ForeignKey("cp_unit.id"), primary_key=True),
    Column("playbook", Text, primary_key=True),
    Column("delivered", Integer, nullable=False, default=0),
    Column("duplicates", Integer, nullable=False, default=0),
    Column("filtered", Integer, nullable=False, default=0),
    Column("condition_errors", Integer, nullable=False, default=0),
    Column("dropped", Integer, nullable=False, default=0),
    Column("dead", Integer, nullable=False, default=0),
    Column("runs", Integer, nullable=False, default=0),
    Column("at", String(32), nullable=False),
    Column("suppressed", Integer, nullable=False, server_default="0"),
    Column("known", Integer, nullable=False, server_default="0"),
)

#: A batch that a sink took: which positions of the unit, and the receiver's ids.
delivery = Table(
    "cp_delivery",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("unit_id", ForeignKey("cp_unit.id"), nullable=False),
    Column("playbook", Text, nullable=False),
    Column("sink", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("positions", Text, nullable=False),
    Column("records", Integer, nullable=False),
    Column("receipts", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Index("cp_delivery_unit", "unit_id", "playbook"),
)

#: The ids of the events that a unit owns, 16 bytes each, and the checksums of their bodies, 4 bytes each.
unit_keys = Table(
    "cp_unit_keys",
    metadata,
    Column("unit_id", ForeignKey("cp_unit.id"), primary_key=True, autoincrement=False),
    Column("keys", LargeBinary, nullable=False),
    Column("checks", LargeBinary, nullable=False),
)

#: Which units hold ids of events of an hour (since 1970; -1 without a time), and where in their blobs.
key_hour = Table(
    "cp_key_hour",
    metadata,
    Column("feed_id", Integer, primary_key=True),
    Column("hour", Integer, primary_key=True),
    Column("unit_id", Integer, primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    Index("cp_key_hour_unit", "unit_id"),
    sqlite_with_rowid=False,
)

#: The fingerprints of an hour that left memory, each with its owner: 4096 pages by the first bits.
#: Where an hour has pages they are complete.
key_page = Table(
    "cp_key_page",
    metadata,
    Column("feed_id", Integer, primary_key=True),
    Column("hour", Integer, primary_key=True),
    Column("page", Integer, primary_key=True),
    Column("entries", LargeBinary, nullable=False),
)

#: Records that could not be read or delivered, kept with their bytes and the reason.
dead_letter = Table(
    "cp_dead_letter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("unit_id", Integer),
    Column("run_id", Text),
    Column("playbook", Text),
    Column("sink", Text),
    Column("position", Integer),
    Column("reason", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at", String(32), nullable=False),
    Index("cp_dead_letter_unit", "unit_id"),
)

#: Time ranges that can never be accounted for, with the cause.
gap = Table(
    "cp_gap",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("feed_id", ForeignKey("cp_feed.id"), nullable=False),
    Column("playbook", Text, nullable=False),
    Column("start", String(32), nullable=False),
    Column("end", String(32), nullable=False),
    Column("cause", Text, nullable=False),
    Column("at", String(32), nullable=False),
    UniqueConstraint("feed_id", "playbook", "start", "end"),
)

#: What became known to be missing, in that order. `kind`: gap, quarantined, lost.
loss = Table(
    "cp_loss",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("feed_id", ForeignKey("cp_feed.id"), nullable=False),
    Column("playbook", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("start", String(32)),
    Column("end", String(32)),
    Column("cause", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

#: The playbook documents that runs began with, by hash.
snapshot = Table(
    "cp_snapshot",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("document", Text, nullable=False),
)

#: Runs, and the outbox at once: a row that is `queued` has still to be started.
#: `status`: held, queued, running, waiting, blocked, succeeded, failed, cancelled.
#: A branch of `parallel`, an element of `for_each` and a called playbook are runs of their own: they have
#: the `parent` run and its step, a `place` among their siblings, an `origin` (role, `item`, deadline,
#: `error`), and are `held` until their turn comes. `rank` orders what is queued: children keep their
#: parent's. `stop` holds what `std.stop` said, `cancel` who asked for it, `failed_at` the failed step and
#: the groups around it. `worker` took the run to work on it; `tell` names the hook that is still to be
#: called (`started`, `finished`).
run = Table(
    "cp_run",
    metadata,
    Column("id", RUN_ID, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("playbook", Text, nullable=False),
    Column("run_key", Text, nullable=False),
    Column("snapshot", ForeignKey("cp_snapshot.hash"), nullable=False),
    Column("event", LargeBinary, nullable=False),
    Column("meta", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("connections", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("segment", Integer, nullable=False, default=1),
    Column("wake", String(32)),
    Column("outcome", String(16)),
    Column("error", Text),
    Column("created", String(32), nullable=False),
    Column("started", String(32)),
    Column("ended", String(32)),
    Column("rank", String(32), nullable=False, server_default=""),
    Column("parent", Text),
    Column("parent_step", Text),
    Column("place", Integer),
    Column("origin", Text),
    Column("stop", Text),
    Column("cancel", Text),
    Column("failed_at", Text),
    Column("worker", Text),
    Column("tell", String(16)),
    Index("cp_run_status", "status", "created"),
    Index("cp_run_turn", "status", "tenant", "rank", "id"),
    Index("cp_run_wake", "status", "wake"),
    Index("cp_run_parent", "parent", "parent_step", "place"),
    Index("cp_run_tell", "tell", **_only("tell IS NOT NULL")),
    Index("cp_run_worker", "worker", **_only("worker IS NOT NULL")),
)

#: Runs that retention deleted: their events start them no second time.
past_run = Table(
    "cp_past_run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("deleted", String(32), nullable=False),
)

#: Values that are too large for their rows, by the hash of their bytes; and which runs refer to them.
artifact = Table(
    "cp_artifact",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
artifact_use = Table(
    "cp_artifact_use",
    metadata,
    Column("hash", ForeignKey("cp_artifact.hash"), primary_key=True),
    Column("run_id", Text, primary_key=True),
    Index("cp_artifact_use_run", "run_id"),
)

#: Processes that work on runs and feeds. `beat` is when one was last seen to live (seconds since 1970, by
#: the database's clock), `lasts` for how many seconds that holds.
worker = Table(
    "cp_worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("started", String(32), nullable=False),
    Column("beat", Float, nullable=False),
    Column("lasts", Float, nullable=False),
)

#: What people see of a run: one row for each step that was reached, written as the run goes.
#: `status`: running, waiting, succeeded, failed, skipped. `due`: when a wait ends or a retry begins.
step = Table(
    "cp_step",
    metadata,
    Column("run_id", ForeignKey("cp_run.id"), primary_key=True),
    Column("step_id", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("uses", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=1),
    Column("arguments", Text),
    Column("result", Text),
    Column("error", Text),
    Column("started", String(32), nullable=False),
    Column("ended", String(32)),
    Column("due", String(32)),
)

#: Attempts of a step that did not end it: `failed` and tried again, or `interrupted` with its process.
attempt = Table(
    "cp_attempt",
    metadata,
    Column("run_id", Text, ForeignKey("cp_run.id"), primary_key=True),
    Column("step_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("error", Text),
    Column("started", String(32), nullable=False),
    Column("ended", String(32)),
)

#: `once_per`: which run holds a key, and since when.
once = Table(
    "cp_once",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("playbook", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("opened", String(32), nullable=False),
)

#: Events that started no run because another one holds their key.
suppressed = Table(
    "cp_suppressed",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("playbook", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("run_key", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Index("cp_suppressed_run", "run_id"),
)

#: Questions to people. `purpose`: `approval` (a step that asks), `guard` (an effect that needs consent) or
#: `plan` (an effect that is not as the approved plan says).
#: `status`: open, approved, denied, expired, cancelled. `people`: how many different ones have to approve.
approval = Table(
    "cp_approval",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run_id", Text, ForeignKey("cp_run.id"), nullable=False),
    Column("step_id", Text, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("playbook", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("form", Text),
    Column("people", Integer, nullable=False),
    Column("starter", Text),
    Column("on_timeout", String(16), nullable=False),
    Column("deadline", String(32)),
    Column("status", String(16), nullable=False),
    Column("created", String(32), nullable=False),
    Column("decided", String(32)),
    Index("cp_approval_status", "status", "created"),
    Index("cp_approval_run", "run_id", "step_id"),
)

#: What people answered: who, from where, when, and on which question.
answer = Table(
    "cp_answer",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("approval_id", ForeignKey("cp_approval.id"), nullable=False),
    Column("person", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("comment", Text, nullable=False),
    Column("form", Text),
    Column("question", Text, nullable=False),
    Column("at", String(32), nullable=False),
    UniqueConstraint("approval_id", "person"),
)

#: Links to answer with: the hash of a token that is good once, for one person.
token = Table(
    "cp_token",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("approval_id", ForeignKey("cp_approval.id"), nullable=False),
    Column("person", Text, nullable=False),
    Column("expires", String(32), nullable=False),
    Column("used", String(32)),
)

#: The journal of effects: an intent before the request, its outcome after it.
#: `status`: intended, done, failed, refused, unknown.
effect = Table(
    "cp_effect",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("cp_run.id"), nullable=False),
    Column("step_id", Text, nullable=False),
    Column("uses", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("connection", Text, nullable=False),
    Column("target", Text),
    Column("subject", Text),
    Column("arguments", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text),
    Column("calls", Text, nullable=False, default="[]"),
    Column("status", String(16), nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("verified", Integer),
    Column("settled", Text),
    Column("at", String(32), nullable=False),
    Column("ended", String(32)),
    UniqueConstraint("run_id", "step_id"),
)

#: The audit log: append-only, each row with the hash of the one before it. `cp_audit_head` has one row,
#: the newest; every append moves it, so that appends follow one another on every database.
audit = Table(
    "cp_audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("who", Text, nullable=False),
    Column("run_id", Text),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("cp_audit_run", "run_id"),
)
audit_head = Table(
    "cp_audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

#: Later looks at effects that are to hold: `after` is the time as the playbook writes it, `held` the answer.
watch = Table(
    "cp_watch",
    metadata,
    Column("run_id", Text, ForeignKey("cp_run.id"), primary_key=True),
    Column("step_id", Text, primary_key=True),
    Column("after", Text, primary_key=True),
    Column("due", String(32), nullable=False),
    Column("checked", String(32)),
    Column("held", Integer),
    Column("detail", Text),
    Column("attempts", Integer, nullable=False, default=0),
    Index("cp_watch_due", "checked", "due"),
)
