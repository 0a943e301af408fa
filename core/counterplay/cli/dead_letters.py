"""`playbook dead-letters`: records that could not be read or delivered, kept with their bytes."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from counterplay.cli.ledger import opened
from counterplay.cli.output import json_option, print_json, print_table
from counterplay.errors import ConfigError


@click.command("dead-letters")
@click.argument("number", metavar="[NUMBER]", type=int, required=False)
@click.option("--playbook", help="Only those of this playbook.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="At most so many."
)
@json_option
def dead_letters(number: int | None, playbook: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, newest first; with NUMBER, print the bytes of one as they came.

    Exits 1 when there are any, 2 when there is none of that number.
    """
    with opened() as book:
        if number is not None:
            body = book.letter(number) if book is not None else None
            if body is None:
                raise ConfigError(
                    f"there is no dead letter {number}", hint="`playbook dead-letters` lists them"
                )
            sys.stdout.buffer.write(body)
            return
        found = book.letters(playbook, limit) if book is not None else []
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        print_table(
            ["NUMBER", "AT", "UNIT OR RUN", "PLACE", "PLAYBOOK", "BYTES", "REASON"],
            [
                [
                    str(one.id),
                    one.at[:19],
                    one.unit,
                    "" if one.position is None else str(one.position),
                    one.playbook,
                    f"{one.size:,}",
                    one.reason,
                ]
                for one in found
            ],
        )
    sys.exit(1 if found else 0)
