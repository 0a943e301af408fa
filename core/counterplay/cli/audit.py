"""`playbook audit`: the log of everything that was done, and its check."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from counterplay.cli.output import json_option, print_json
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.audit import Entry, Verified
    from counterplay.store.database import Database


@click.group()
def audit() -> None:
    """The log of every effect, delivery, approval, refusal, configuration change and command."""


@audit.command()
@click.option("--head", metavar="HASH", help="A hash that was noted before: it must still be in the log.")
@click.option(
    "--file", metavar="FILE", help="Check a file that `playbook audit export` wrote, instead of the store."
)
@json_option
def verify(head: str | None, file: str | None, as_json: bool) -> None:
    """Check that no entry was changed, removed, inserted or put elsewhere.

    Prints the hash at the end: keep it somewhere else, and give it as --head later, to see that the
    end was not cut off. Exits 0 when the log holds, 1 when it does not.
    """
    from counterplay import audit as log

    found: Verified
    if file is not None:
        lines = list(_read(file))
        flaws = list(log.broken(lines))
        end = lines[-1].hash if lines else log.GENESIS
        if head is not None and head != log.GENESIS and not any(one.hash == head for one in lines):
            flaws.append(log.Flaw(len(lines) + 1, f"no entry has the hash {head}"))
        found = log.Verified(len(lines), end, tuple(flaws))
    else:
        with store() as database:
            found = log.verify(database, head=head)
    if as_json:
        flaws_shown = [{"seq": one.seq, "reason": one.reason} for one in found.flaws]
        print_json({"entries": found.entries, "head": found.head, "flaws": flaws_shown})
    else:
        for flaw in found.flaws:
            click.echo(f"entry {flaw.seq}: {flaw.reason}")
        word = "the log holds" if not found.flaws else "the log does NOT hold"
        click.echo(f"{word}: {found.entries} entries, head {found.head}")
    sys.exit(1 if found.flaws else 0)


@audit.command()
@click.option("--output", metavar="FILE", help="Write to FILE instead of stdout.")
def export(output: str | None) -> None:
    """Write the whole log as JSON lines, each entry with its hash and the one before it."""
    from counterplay import audit as log

    with store() as database:
        lines = (json.dumps(one.to_document(), ensure_ascii=False) for one in log.entries(database))
        if output is None:
            for line in lines:
                click.echo(line)
            return
        try:
            with Path(output).open("x", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            raise ConfigError(f"cannot write it: {error.strerror}", path=output) from error


@contextmanager
def store() -> Iterator[Database]:
    """The workspace's store, opened beside a worker, to be read. NoStateError: nothing has run yet."""
    from counterplay.cli.loading import open_workspace
    from counterplay.store.reading import readable_database

    with readable_database(open_workspace().store_url) as database:
        yield database


def _read(file: str) -> Iterator[Entry]:
    from counterplay.audit import Entry

    try:
        text = Path(file).read_text("utf-8")
        for line in text.splitlines():
            yield Entry(**json.loads(line))
    except OSError as error:
        raise ConfigError(f"cannot read the log: {error.strerror or error}", path=file) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"this is no exported audit log: {error}", path=file) from error
