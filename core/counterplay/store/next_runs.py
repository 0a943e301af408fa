"""Whose run is next: tenants take turns, so that one with hundreds of alerts holds nobody else back."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.store.tables import run

_PARKED = ("waiting", "blocked")


def next_runs(
    connection: sa.Connection, limit: int, newcomers: int, held: Collection[str], worker: str | None
) -> list[tuple[str, int]]:
    """(run, segment) of runs that have to be started or woken now.

    At most `limit` of them: each time the next run of the tenant that has the fewest at work, where that is
    equal of the one that waits longest; within a tenant what was woken first, then by age. Beyond them at
    most `newcomers`, one each of tenants that have none at work. `held` are runs that the caller works on.
    With `worker` the runs are taken for it at once, and what others hold is at work, too.
    """
    due = _tenants(connection)
    if limit + newcomers <= 0 or not due:
        return []
    working = _working(connection, held, worker) if len(due) > 1 or limit <= 0 else Counter[str]()
    found: list[tuple[str, int]] = []
    taken = set(held)
    while due and len(found) < limit:
        for tenant, share in _shares(limit - len(found), due, working).items():
            got = _take(connection, tenant, share, taken, worker)
            taken.update(identity for identity, _ in got)
            working[tenant] += len(got)
            found += got
            if len(got) < share:
                del due[tenant]
    for tenant in [one for one in sorted(due, key=lambda one: due[one]) if not working[one]][:newcomers]:
        found += _take(connection, tenant, 1, taken, worker)
    return found


def _shares(number: int, due: Mapping[str, str], working: Mapping[str, int]) -> dict[str, int]:
    """How many of the next runs are whose, if each tenant has as many."""
    turns = [(working.get(tenant, 0), since, tenant) for tenant, since in due.items()]
    heapq.heapify(turns)
    shares: Counter[str] = Counter()
    for _ in range(number):
        count, since, tenant = turns[0]
        heapq.heapreplace(turns, (count + 1, since, tenant))
        shares[tenant] += 1
    return shares


def _tenants(connection: sa.Connection) -> dict[str, str]:
    """Since when which tenant has runs to start or to wake; only the first of each is looked at."""
    queued = run.c.status == "queued"
    tenants = (
        sa.select(sa.func.min(run.c.tenant).label("tenant")).where(queued).cte("tenants", recursive=True)
    )
    after = sa.select(sa.func.min(run.c.tenant)).where(queued, run.c.tenant > tenants.c.tenant)
    tenants = tenants.union_all(sa.select(after.scalar_subquery()).where(tenants.c.tenant.is_not(None)))
    eldest = sa.select(sa.func.min(run.c.rank)).where(queued, run.c.tenant == tenants.c.tenant)
    found = connection.execute(
        sa.select(tenants.c.tenant, eldest.scalar_subquery()).where(tenants.c.tenant.is_not(None))
    )
    since = {tenant: str(rank) for tenant, rank in found}
    woken = sa.select(run.c.tenant, sa.func.min(run.c.wake)).where(*_woken()).group_by(run.c.tenant)
    for tenant, wake in connection.execute(woken):
        since[tenant] = min(since.get(tenant, wake), wake)
    return since


def _woken() -> tuple[sa.ColumnElement[bool], ...]:
    return run.c.status.in_(_PARKED), run.c.wake <= to_text(now()), run.c.worker.is_(None)


def _working(connection: sa.Connection, held: Collection[str], worker: str | None) -> Counter[str]:
    """How many runs of each tenant are at work."""
    at_work = run.c.id.in_(held) if worker is None else run.c.worker.is_not(None)
    query = sa.select(run.c.tenant, sa.func.count()).where(at_work).group_by(run.c.tenant)
    return Counter({tenant: int(count) for tenant, count in connection.execute(query)})


def _take(
    connection: sa.Connection, tenant: str, number: int, taken: Collection[str], worker: str | None
) -> list[tuple[str, int]]:
    free = (run.c.tenant == tenant, run.c.worker.is_(None), run.c.id.not_in(taken))
    woken = sa.select(run.c.id, run.c.segment).where(*_woken(), *free).order_by(run.c.wake, run.c.id)
    queued = sa.select(run.c.id, run.c.segment).where(run.c.status == "queued", *free)
    found: list[tuple[str, int]] = []
    for query in (woken, queued.order_by(run.c.rank, run.c.id)):
        left = number - len(found)
        if left <= 0:
            break
        chosen = query.limit(left)
        if worker is None:
            found += [(identity, segment) for identity, segment in connection.execute(chosen)]
            continue
        ids = chosen.with_only_columns(run.c.id).with_for_update(skip_locked=True)
        moved = sa.update(run).where(run.c.id.in_(ids)).values(worker=worker)
        rows = connection.execute(moved.returning(run.c.id, run.c.segment))
        found += [(row.id, row.segment) for row in rows]
    return found
