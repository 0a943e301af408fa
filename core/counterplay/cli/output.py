"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import click

#: What a terminal would obey instead of showing it: control characters, breaks of lines, turns of the
#: direction of writing, halves of characters.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Text from outside (an event, a tenant) as one line: what a terminal would obey stands as `\\x1b`.

    Else an alert could rewrite the question that a person is about to approve.
    """
    return _OBEYED.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def say(line: str = "", *, err: bool = False, **style: Any) -> None:
    """Print one line that may hold text from outside."""
    click.echo(click.style(visible(line), **style) if style else visible(line), err=err)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; a terminal cuts nothing, so that the output can be searched and piped."""
    cells = [list(headings), *[[visible(str(cell)) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)


def counted(number: int, what: str) -> str:
    """`1 event`, `2,000 events`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
