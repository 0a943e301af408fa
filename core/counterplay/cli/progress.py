"""What people see of a session: a status line while it works, notices as they come, a summary."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from counterplay.cli.output import counted, say, visible
from counterplay.runtime.figures import told

if TYPE_CHECKING:
    from counterplay.runtime.figures import Figures
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.session import Ended, Session
    from counterplay.runtime.standing import Standing

_EVERY = 0.25
_PLAIN_EVERY = 10.0


@contextmanager
def progress(
    session: Session, opener: Opener, *, quiet: bool, debug: bool = False
) -> Iterator[Callable[[], None]]:
    """Show what the session does on stderr: a live line on a terminal, else a line now and then.

    `debug` adds to what is logged where it came from.
    """
    from counterplay.secrets import MaskingFilter

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(MaskingFilter(opener.secrets))
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s", where=debug))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    done = threading.Event()
    display = _Display(session, opener.secrets.mask, live=sys.stderr.isatty() and not quiet, quiet=quiet)
    thread = threading.Thread(target=display.follow, args=(done,), name="progress", daemon=True)
    thread.start()
    try:
        yield display.started
    finally:
        done.set()
        thread.join()
        logging.getLogger().removeHandler(handler)
        handler.close()


class _Display:
    def __init__(self, session: Session, mask: Callable[[str], str], *, live: bool, quiet: bool) -> None:
        self._session = session
        self._mask = mask
        self._live = live
        self._quiet = quiet
        self._said: dict[str, str] = {}

    def started(self) -> None:
        for url in self._session.urls:
            click.echo(f"push trigger: POST {url}", err=True)

    def follow(self, done: threading.Event) -> None:
        if self._live:
            from rich.console import Console

            console = Console(stderr=True)
            with console.status("starting") as status:
                while not done.wait(_EVERY):
                    self._say_new(
                        lambda text: console.print(text, style="yellow", markup=False, highlight=False)
                    )
                    status.update(self._line())
            return
        waited = 0.0
        while not done.wait(_EVERY):
            waited += _EVERY
            self._say_new(lambda text: click.echo(text, err=True))
            if waited >= _PLAIN_EVERY and not self._quiet:
                waited = 0.0
                click.echo(self._line(), err=True)

    def _say_new(self, say: Callable[[str], None]) -> None:
        lines = self._session.figures.lines
        new = {about: text for about, text in lines.items() if self._said.get(about) != text}
        self._said.update(new)
        for line in told(new):
            say(visible(self._mask(line)))

    def _line(self) -> str:
        session = self._session
        line = status_line(session.name, session.figures, session.standing())
        return "; ".join([line, *map(self._mask, session.figures.under_way.values())])


def status_line(name: str, figures: Figures, standing: Standing) -> str:
    """What a session has done, what is wrong, and how far its sources are."""
    parts = [
        f"{counted(figures['collected'], 'event')} in {counted(figures['units'], 'unit')}",
        f"{figures['delivered']:,} delivered",
    ]
    if figures["units_again"]:
        parts.append(f"{counted(figures['units_again'], 'unit')} fetched again")
    if standing.backlog:
        parts.append(f"{counted(standing.backlog, 'unit')} to do")
    if standing.waits_for:
        first, *rest = standing.waits_for
        others = f" and {counted(len(rest), 'other source')}" if rest else ""
        parts.append(f"waiting for {first}{others} to answer")
    rare = {"duplicates": "dropped as known", "quarantined": "quarantined", "lost": "lost"}
    parts += [f"{figures[name]:,} {words}" for name, words in rare.items() if figures[name]]
    if figures["gaps"]:
        parts.append(counted(figures["gaps"], "gap"))
    if standing.throttles:
        parts.append(f"throttled {standing.throttles:,} x")
    if figures["runs"]:
        ended = figures["runs_succeeded"] + figures["runs_failed"]
        parts.append(f"{ended} of {figures['runs']} runs ended")
    if standing.lag:
        parts.append(f"lag {standing.lag:.1f} s")
    if standing.limit:
        parts.append(f"{standing.used:,} of {standing.limit:,.0f} requests a minute")
    return f"{name}: " + ", ".join(parts)


def print_summary(name: str, ended: Ended, mask: Callable[[str], str]) -> None:
    """The closing summary, on stdout: the figures, then who was affected, then what is not well."""
    figures = {key: int(value) for key, value in ended.figures.items()}

    def count(key: str) -> int:
        return figures.get(key, 0)

    words = {0: "done", 1: "something failed", 3: "waiting or blocked", 130: "interrupted"}
    word = words.get(ended.exit_code, "ended")
    click.echo(click.style(f"{name}: {word} in {ended.seconds:.1f} s", bold=True))
    _row("collected", f"{counted(count('collected'), 'event')} in {counted(count('units'), 'unit')}")
    if count("units_again"):
        again = f"{counted(count('collected_again'), 'event')} in {counted(count('units_again'), 'unit')}"
        _row("caught up", f"{again} that had been collected before")
    if count("duplicates"):
        _row("duplicates", f"{count('duplicates'):,} dropped")
    if count("filtered"):
        _row("filtered", f"{count('filtered'):,} did not match")
    if count("condition_errors"):
        _row("conditions", f"{count('condition_errors'):,} raised and counted as false")
    _row("delivered", counted(count("delivered") + count("outcomes"), "record"))
    if count("runs") or count("runs_waiting") or count("runs_succeeded") or count("runs_failed"):
        states = [("succeeded", "runs_succeeded"), ("failed", "runs_failed"), ("waiting", "runs_waiting")]
        ended_so = ", ".join(f"{count(key):,} {state}" for state, key in states if count(key))
        _row("runs", f"{count('runs'):,} started: {ended_so or 'none ended yet'}")
    effects = ["done", "failed", "refused", "unknown"]
    if any(count(f"effects_{one}") for one in effects):
        _row(
            "effects",
            ", ".join(f"{count(f'effects_{one}'):,} {one}" for one in effects if count(f"effects_{one}")),
        )
    for subject, changes in ended.changed.items():
        _row("changed", f"{subject}: {', '.join(changes)}")
    for state in ("broken", "quarantined", "lost", "gaps", "dead_letters"):
        if count(state):
            _row(state.replace("_", " "), f"{count(state):,}")
    for line in ended.lines:
        say(f"  {mask(line)}")
    for line in told(ended.notices):
        say(f"  ! {mask(line)}", fg="yellow")


class _OneLine(logging.Formatter):
    """A line for each record: an exception is named, and shown with its place only for `--debug`."""

    def __init__(self, pattern: str, *, where: bool) -> None:
        super().__init__(pattern)
        self._where = where

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not record.exc_text:
            return visible(text)
        if self._where:
            return text
        traceback = f"\n{record.exc_text}"
        named = [line for line in record.exc_text.splitlines() if line[:1] not in ("", " ", "(")]
        return visible(text.replace(traceback, "").rstrip(" :\n") + (f": {named[-1]}" if named else ""))


def _row(name: str, text: str) -> None:
    say(f"  {name:<12} {text}")
