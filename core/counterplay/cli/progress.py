"""What people see of a session: a status line while it works, notices as they come, a summary."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.session import Ended, Session

_EVERY = 0.25
_PLAIN_EVERY = 10.0


@contextmanager
def progress(session: Session, opener: Opener, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show what the session does on stderr: a live line on a terminal, else a line now and then."""
    from counterplay.secrets import MaskingFilter

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(MaskingFilter(opener.secrets))
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
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
        for about, text in self._session.figures.notices.items():
            if self._said.get(about) != text:
                self._said[about] = text
                say(self._mask(f"{about}: {text}"))

    def _line(self) -> str:
        figures = self._session.figures
        parts = [
            f"{figures['collected']:,} events in {figures['units']:,} units",
            f"{figures['delivered']:,} delivered",
        ]
        if figures["runs"]:
            ended = figures["runs_succeeded"] + figures["runs_failed"]
            parts.append(f"{ended} of {figures['runs']} runs ended")
        return f"{self._session.name}: " + ", ".join(parts)


def print_summary(name: str, ended: Ended) -> None:
    """The closing summary, on stdout: the figures, then who was affected, then what is not well."""
    figures = {key: int(value) for key, value in ended.figures.items()}

    def count(key: str) -> int:
        return figures.get(key, 0)

    word = {0: "done", 1: "something failed", 3: "waiting", 130: "interrupted"}.get(ended.exit_code, "ended")
    click.echo(click.style(f"{name}: {word} in {ended.seconds:.1f} s", bold=True))
    _row("collected", f"{count('collected'):,} events in {count('units'):,} units")
    if count("duplicates"):
        _row("duplicates", f"{count('duplicates'):,} dropped")
    if count("filtered"):
        _row("filtered", f"{count('filtered'):,} did not match")
    if count("condition_errors"):
        _row("conditions", f"{count('condition_errors'):,} raised and counted as false")
    _row("delivered", f"{count('delivered') + count('outcomes'):,} records")
    if count("runs") or count("runs_waiting") or count("runs_succeeded") or count("runs_failed"):
        states = [("succeeded", "runs_succeeded"), ("failed", "runs_failed"), ("waiting", "runs_waiting")]
        told = ", ".join(f"{count(key):,} {state}" for state, key in states if count(key))
        _row("runs", f"{count('runs'):,} started: {told or 'none ended yet'}")
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
        click.echo(f"  {line}")
    for about, text in ended.notices.items():
        click.echo(click.style(f"  ! {about}: {text}", fg="yellow"))


def _row(name: str, text: str) -> None:
    click.echo(f"  {name:<12} {text}")
