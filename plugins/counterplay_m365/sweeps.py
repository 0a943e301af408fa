"""How a Graph collection is followed by a time that its records carry, without a gap. No I/O here.

One *sweep* reads what happened from the mark up to a frozen goal, and then moves the mark there:

* The window is closed at both ends (`ge`, `le`), and neighbours share their edge: records of the same
  instant are never cut apart.
* The goal is frozen, so a record that is updated meanwhile leaves the window, and the next sweep finds it.
* Services page by position: a record that leaves a window while it is paged makes the next page skip one.
  So when a window took several pages and something has moved since, it is halved and read anew, down to
  windows of one page (or one second), where nothing can be skipped.
* The next sweep begins an overlap before the mark, and once an hour a longer one, for records that become
  visible late. What was handed out before is a repeat, which `Recall` and the host's ledger drop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from counterplay import GoneError, JsonObject, PermanentError, RejectedError
from counterplay_m365 import times

MAX_PAGES = 1000
MAX_RESTARTS = 3
REVISIT_EVERY = timedelta(hours=1)
_NARROWEST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Records:
    """A page: records as the bytes that the service sent, and the address of the next page."""

    records: tuple[bytes, ...]
    next_link: str | None


class Source(Protocol):
    """The collection, asked for by time. It raises the errors of `counterplay.errors`."""

    def first(self, start: str, until: str) -> Records:
        """The first page of the records whose time lies in [start, until]."""

    def follow(self, link: str) -> Records:
        """The page at the link that an earlier page gave."""

    def moved_since(self, until: str) -> bool:
        """Whether a record that existed at `until` has been given a later time since."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is known of a collection. `moves`: an update gives a record a new time."""

    what: str
    overlap: timedelta
    revisit: timedelta
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One page of a sweep, and the cursor that is stored with it."""

    records: Sequence[bytes]
    cursor: JsonObject
    more: bool


def turn(
    source: Source, recipe: Recipe, cursor: Mapping[str, Any] | None, since: datetime, now: datetime
) -> Turn:
    """Read the next page.

    Cursor: `{"mark", "revisited"}` between sweeps: what happened before `mark` is accounted for. In a
    sweep besides these `{"from", "until", "goal"}`, the present window and where the sweep ends, and
    between two pages `{"next", "pages", "restarts"}`.
    """
    state = _begun(recipe, cursor, since, now)
    following: str | None = state.get("next")
    try:
        page = source.follow(following) if following else source.first(state["from"], state["until"])
    except (GoneError, RejectedError) as error:
        if not following:
            raise
        state = _restarted(recipe, state, error)  # the link has expired: the same window from its start
        following = None
        page = source.first(state["from"], state["until"])
    if page.next_link is None:
        return Turn(page.records, *_after_window(source, recipe, state))
    pages = int(state.get("pages", 0))
    if page.next_link == following or pages == MAX_PAGES:
        raise PermanentError(f"{_listing(recipe, state)} has no end")
    return Turn(page.records, {**state, "next": page.next_link, "pages": pages + 1}, True)


def _begun(
    recipe: Recipe, cursor: Mapping[str, Any] | None, since: datetime, now: datetime
) -> dict[str, Any]:
    """The state of the sweep that is under way, or of a new one."""
    if cursor is not None and "goal" in cursor:
        return dict(cursor)
    goal = stamp(now)
    if cursor is None:
        return {"mark": stamp(since), "revisited": goal, "from": stamp(since), "until": goal, "goal": goal}
    mark = _moment(cursor, "mark")
    revisited = _moment(cursor, "revisited") if "revisited" in cursor else mark
    deep = now - revisited >= REVISIT_EVERY
    start = mark - (max(recipe.revisit, recipe.overlap) if deep else recipe.overlap)
    goal = stamp(max(now, mark))  # a clock that was set back moves no mark back
    return {
        "mark": stamp(mark),
        "revisited": stamp(now if deep else revisited),
        "from": stamp(start),
        "until": goal,
        "goal": goal,
    }


def _after_window(source: Source, recipe: Recipe, state: JsonObject) -> tuple[JsonObject, bool]:
    """The window's last page was read: its half again, the next window, or the end of the sweep."""
    start, until = _moment(state, "from"), _moment(state, "until")
    kept = {name: state[name] for name in ("mark", "revisited", "goal")}
    paged = int(state.get("pages", 0)) > 0
    if recipe.moves and paged and until - start > _NARROWEST and source.moved_since(state["until"]):
        middle = start + max(_NARROWEST, (until - start) / 2)
        return {**kept, "from": state["from"], "until": stamp(middle)}, True
    if state["until"] == state["goal"]:
        return {"mark": state["goal"], "revisited": state["revisited"]}, False
    return {**kept, "from": state["until"], "until": state["goal"]}, True


def _restarted(recipe: Recipe, state: dict[str, Any], error: GoneError | RejectedError) -> dict[str, Any]:
    restarts = int(state.get("restarts", 0))
    if restarts == MAX_RESTARTS:
        raise PermanentError(
            f"{_listing(recipe, state)} broke off {MAX_RESTARTS + 1} times: {error.message}",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        ) from error
    kept = {name: value for name, value in state.items() if name not in ("next", "pages")}
    return {**kept, "restarts": restarts + 1}


def _listing(recipe: Recipe, state: Mapping[str, Any]) -> str:
    return f"the listing of {recipe.what} from {state['from']} to {state['until']}"


def _moment(state: Mapping[str, Any], name: str) -> datetime:
    found = times.parse(state.get(name))
    if found is None:
        raise PermanentError(f"the stored cursor holds no time as {name!r}: {str(dict(state))[:200]}")
    return found


def stamp(moment: datetime) -> str:
    """`2026-03-02T08:00:00Z`, or with milliseconds where there are some.

    A goal that is cut to the second would leave out what happened within it, and can be seen already.
    """
    moment = moment.astimezone(UTC)
    thousandths = moment.microsecond // 1000
    return f"{times.stamp(moment)}{f'.{thousandths:03d}' if thousandths else ''}Z"
