"""`playbook ledger`: every unit that a source listed, accounted for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from counterplay.cli.output import counted, json_option, print_json, print_table
from counterplay.errors import BusyError, ConfigError

if TYPE_CHECKING:
    from counterplay.store.ledger import Ledger


class _Account(click.Group):
    """`ledger FEED` is the account of that feed; what is no subcommand is a feed."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in self.commands:
            arguments = ["account", *arguments]
        return super().resolve_command(context, arguments)


_RARE = (
    "ended",
    "condition_errors",
    "runs",
    "suppressed",
    "known",
)  # columns that are shown when they hold something
_FEED = click.argument("feed", required=False)


@click.group(cls=_Account, invoke_without_command=True)
@json_option
@click.pass_context
def ledger(context: click.Context, as_json: bool) -> None:
    """Show what became of everything that was listed: the account by hour.

    FEED is a part of a feed's name, such as Audit.Exchange or a connection, in letters of any case.

    Exits 1 when something is quarantined, lost or missing, 3 when something still waits.
    """
    if context.invoked_subcommand is None:
        context.invoke(account, feed=None, as_json=as_json)
    elif as_json:  # `ledger --json FEED` means what `ledger FEED --json` does
        context.default_map = {name: {"as_json": True} for name in ("account", "gaps")}


@ledger.command()
@_FEED
@json_option
def account(feed: str | None, as_json: bool) -> None:
    """Show the account by hour (what `ledger FEED` does)."""
    with opened() as book:
        feeds = _feeds(book, feed)
        rows = book.account(feeds) if book is not None else []
        gaps = book.gaps(feeds) if book is not None else []
    if as_json:
        print_json([{**asdict(row), "balanced": row.balanced} for row in rows])
    else:
        names = ["units", "acknowledged", "waiting", "quarantined", "lost", "events", "delivered"]
        names += ["duplicates", "filtered", "dropped", "dead"]
        names += [name for name in _RARE if any(getattr(row, name) for row in rows)]
        print_table(
            ["FEED", "PLAYBOOK", "HOUR", *(name.upper().replace("_", " ") for name in names)],
            [
                [row.feed, row.playbook, row.hour, *(f"{getattr(row, name):,}" for name in names)]
                for row in rows
            ],
        )
        units = sum(row.units for row in rows)
        if all(row.balanced for row in rows):
            in_all = f"{counted(units, 'unit')}, counted for each playbook"
            waiting = sum(row.waiting for row in rows)
            still = f"; {counted(waiting, 'unit')} still to be delivered" if waiting else ""
            click.echo(f"\n{in_all}: every unit that was listed is accounted for{still}.")
        else:
            click.echo("\nThe account does not balance: report this.", err=True)
        if gaps:
            click.echo(f"{counted(len(gaps), 'gap')}: see `playbook ledger gaps`.")
    if gaps or not all(row.balanced for row in rows):
        sys.exit(1)
    if any(row.waiting for row in rows):
        sys.exit(3)


@ledger.command()
@_FEED
@json_option
def gaps(feed: str | None, as_json: bool) -> None:
    """Show time ranges and units that can never, or not yet, be accounted for. Exits 1 when there are any."""
    with opened() as book:
        found = book.gaps(_feeds(book, feed)) if book is not None else []
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        print_table(
            ["FEED", "PLAYBOOK", "STATUS", "FROM", "TO", "UNIT", "CAUSE"],
            [
                [
                    one.feed,
                    one.playbook or "all",
                    one.status,
                    one.start[:19],
                    one.end[:19],
                    one.unit,
                    one.cause,
                ]
                for one in found
            ],
        )
    sys.exit(1 if found else 0)


@ledger.command()
@_FEED
@click.option("--unit", "units", multiple=True, metavar="UNIT", help="Only this unit. May be repeated.")
def retry(feed: str | None, units: tuple[str, ...]) -> None:
    """Try quarantined and lost units again, at the next `playbook run` or in the one that is running."""
    with opened() as book:
        if book is None and units:
            raise ConfigError(f"there is no unit {units[0]!r}", hint="nothing was collected here yet")
        count = book.retry(_feeds(book, feed), units) if book is not None else 0
    click.echo(f"{counted(count, 'unit')} to be tried again")


@ledger.command()
@click.argument("name", metavar="PLAYBOOK")
@_FEED
def end(name: str, feed: str | None) -> None:
    """End the subscriptions of PLAYBOOK, which is not run any more: nothing waits for it from now on.

    What it has not got by then stands in its account as ended. Should it be run again, it begins anew at
    its look-back, and what lies between is a gap. Refused while a process works that may run it.
    """
    from counterplay import audit
    from counterplay.cli.loading import open_workspace
    from counterplay.store.database import holder_of
    from counterplay.store.feeds import FeedStore
    from counterplay.store.workers import WorkerStore

    with opened() as book:
        feeds = _feeds(book, feed)
        ended: list[int] = []
        if book is not None:
            database = book.database
            if database.path is not None:
                works = holder_of(database.path) is not None
            else:
                works = any(not one.dead for one in WorkerStore(database).listed())
            if works and name in open_workspace().playbooks():
                raise BusyError(
                    f"a process works on this store that may run {name!r}",
                    hint="end it, or delete the playbook, first",
                )
            with database.write() as connection:
                ended = FeedStore(database).end(connection, name, feeds)
                about = {"command": "ledger end", "playbook": name, "feeds": [feeds[one] for one in ended]}
                if ended:
                    audit.append(connection, "command", about)
    if not ended:
        raise ConfigError(f"{name!r} subscribes to nothing here", hint="`playbook ledger` shows who does")
    click.echo(f"{name}: {counted(len(ended), 'subscription')} ended")


@ledger.command()
@_FEED
def export(feed: str | None) -> None:
    """Print every unit with its receipts, one JSON object a line."""
    with opened() as book:
        for one in book.export(_feeds(book, feed)) if book is not None else ():
            click.echo(json.dumps(one))


@contextmanager
def opened() -> Iterator[Ledger | None]:
    """The ledger; None while there is no state yet."""
    from counterplay.cli.loading import open_workspace
    from counterplay.store.database import existing_database
    from counterplay.store.ledger import Ledger

    with existing_database(open_workspace().store_url) as database:
        yield Ledger(database) if database is not None else None


def _feeds(book: Ledger | None, named: str | None) -> dict[int, str]:
    """The feeds of that name. ConfigError: there is none."""
    found = book.feeds(named) if book is not None else {}
    if named is not None and not found:
        known = ", ".join((book.feeds() if book is not None else {}).values()) or "none yet"
        raise ConfigError(f"there is no feed {named!r}", hint=f"there are: {known}")
    return found
