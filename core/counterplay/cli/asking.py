"""Questions on the terminal, and what to do where there is none."""

from __future__ import annotations

import click

from counterplay.errors import ConfigError


def ask(what: str, *, otherwise: str, default: str | None = None, show_default: bool = True) -> str:
    """What somebody types; the question stands on stderr.

    ConfigError: the input ended instead; `otherwise` is how to answer without a terminal.
    """
    try:
        answer: str = click.prompt(what, default=default, show_default=show_default, err=True)
    except click.Abort as stopped:
        if not isinstance(stopped.__context__, EOFError):
            raise  # Ctrl-C
        click.echo(err=True)  # the question stands there without an end
        raise ConfigError(f"no answer to `{what}`: the input has ended", hint=otherwise) from None
    return answer.strip()
