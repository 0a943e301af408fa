"""The command `playbook`: a group whose commands are loaded when they are used."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import click

from counterplay.errors import ConfigError, CounterplayError, NoStateError, StateError

#: Our own commands: where each is, and its line in the help.
_COMMANDS = {
    "run": ("counterplay.cli.run:run", "Run the playbook NAME, or all playbooks of the set NAME."),
    "up": ("counterplay.cli.up:up", "Run all enabled playbooks of the workspace as a service."),
    "plan": ("counterplay.cli.plan:plan", "Show what a run would read, change and deliver; send nothing."),
    "check": ("counterplay.cli.check:check", "Say everything that is wrong with playbooks, before they run."),
    "test": ("counterplay.cli.test:test", "Try what playbooks do in given circumstances, offline."),
    "list": ("counterplay.cli.list:list_playbooks", "List the playbooks that can be run."),
    "show": ("counterplay.cli.show:show", "Show what a playbook does, step by step."),
    "ledger": (
        "counterplay.cli.ledger:ledger",
        "Account for everything that was listed; gaps, retry, export.",
    ),
    "dead-letters": (
        "counterplay.cli.dead_letters:dead_letters",
        "List records that could not be read or delivered.",
    ),
    "runs": ("counterplay.cli.runs:runs", "List runs, show or follow one, cancel one, let one go on."),
    "approvals": ("counterplay.cli.approvals:approvals", "List the questions that runs wait on."),
    "approve": ("counterplay.cli.approvals:approve", "Approve what a run asks."),
    "deny": ("counterplay.cli.approvals:deny", "Deny what a run asks."),
    "audit": ("counterplay.cli.audit:audit", "Check or export the log of everything that was done."),
    "evidence": ("counterplay.cli.evidence:evidence", "Write one archive about one run, or check one."),
    "record": ("counterplay.cli.record:record", "Write a test that repeats a run, without names."),
    "undo": ("counterplay.cli.undo:undo", "Take back what a run did."),
    "store": ("counterplay.cli.store:store", "Show what the store holds; delete what is old."),
    "workers": ("counterplay.cli.workers:workers", "List the workers that share the store."),
    "modules": ("counterplay.cli.modules:modules", "List the modules, or explain one."),
    "plugins": ("counterplay.cli.plugins:plugins", "List the plugins, with what keeps one from working."),
    "connections": ("counterplay.cli.connections:connections", "List connections, or check that one works."),
    "doctor": ("counterplay.cli.doctor:doctor", "Say what playbooks would be refused, and why."),
    "new": ("counterplay.cli.new:new", "Write a playbook and its test, to go on from."),
    "schema": ("counterplay.cli.schema:schema", "Print the JSON Schema of playbooks, for editors."),
    "export": ("counterplay.cli.export:export", "Write a playbook in a form that others read (CACAO)."),
    "init": ("counterplay.cli.init:init", "Make a workspace in the current directory."),
}
_GROUP = "counterplay.commands"


class _LazyGroup(click.Group):
    """Knows its commands by name; imports one only when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*_COMMANDS, *sorted(_plugin_commands())]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in _COMMANDS:
            module, _, attribute = _COMMANDS[name][0].partition(":")
            command: click.Command = getattr(import_module(module), attribute)
            return command
        point = _plugin_commands().get(name)
        return _load(point) if point is not None else None

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(context)
        if arguments and arguments[0] not in known and not arguments[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(arguments[0], known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            why = _refused_commands().get(arguments[0])
            context.fail(f"No such command {arguments[0]!r}{f': {why}' if why else f'.{hint}'}")
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, line) for name, (_, line) in _COMMANDS.items()]
        rows += [(name, _line(point)) for name, point in sorted(_plugin_commands().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _line(point: EntryPoint) -> str:
    """A plugin's command in the help, read from its file: importing plugins would take too long."""
    from counterplay.plugin_files import command_help

    said = command_help(point)
    if said is None or _distribution(point) == "counterplay":
        return said or f"(from the plugin {_package(point)})"
    return f"{said} ({_distribution(point)})"


def _plugin_commands() -> dict[str, EntryPoint]:
    """Commands of plugins by name. Ours win; a name that two plugins claim belongs to neither."""
    off = _disabled_packages()
    working = {
        name: [point for point in claims if _package(point) not in off] for name, claims in _claims().items()
    }
    return {name: claims[0] for name, claims in working.items() if len(claims) == 1}


def _refused_commands() -> dict[str, str]:
    """Why commands that are installed cannot be called."""
    off = _disabled_packages()
    refused = {}
    for name, claims in _claims().items():
        if len(claims) > 1:
            refused[name] = f"{' and '.join(map(_distribution, claims))} claim it; uninstall one of them"
        elif _package(claims[0]) in off:
            refused[name] = f"the plugin {off[_package(claims[0])]} is disabled by COUNTERPLAY_DISABLE"
    return refused


def _claims() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=_GROUP):
        if point.name not in _COMMANDS:
            claims = found.setdefault(point.name, [])
            if point not in claims:
                claims.append(point)
    return found


def _disabled_packages() -> dict[str, str]:
    """The plugins that COUNTERPLAY_DISABLE takes out, by their package."""
    disabled = {name.strip() for name in os.environ.get("COUNTERPLAY_DISABLE", "").split(",")}
    points = entry_points(group="counterplay") if disabled != {""} else ()
    return {_package(point): point.name for point in points if point.name in disabled}


def _package(point: EntryPoint) -> str:
    return point.module.partition(".")[0]


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _load(point: EntryPoint) -> click.Command:
    distribution = _distribution(point)
    _refuse_unagreed(point)
    try:
        command = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit included
        raise CounterplayError(
            f"the command {point.name!r} of {distribution} cannot be loaded: "
            f"{type(error).__name__}: {' '.join(str(error).split())}",
            hint=f"fix or uninstall {distribution}",
        ) from error
    if not isinstance(command, click.Command):
        raise CounterplayError(
            f"the entry point {point.value!r} of {distribution} is not a click command",
            hint=f"fix or uninstall {distribution}",
        )
    return command


def _refuse_unagreed(command: EntryPoint) -> None:
    """ConfigError: the workspace's lock does not hold the plugin that the command belongs to."""
    from counterplay.plugin_lock import lock_here

    lock = lock_here()
    why = lock.refusal_of_command(command, [*entry_points(group="counterplay")]) if lock else None
    if why:
        raise ConfigError(
            f"the command {command.name!r} cannot be used: {why}", hint="look at `playbook plugins check`"
        )


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="counterplay", prog_name="playbook")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
def playbook(debug: bool) -> None:
    """Run playbooks of security response: collect, decide, act, prove.

    Try `playbook run quickstart`: it needs no tenant.

    Exit codes: 0 done, 1 something failed or is quarantined, 2 invalid input,
    3 waiting or blocked, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """The console script. Errors are one line on stderr; `--debug` adds where they came from."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        # `--debug` counts wherever it stands: that is where people add it.
        code = playbook.main(
            ["--debug"] * debug + [word for word in words if word != "--debug"], standalone_mode=False
        )
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except CounterplayError as error:
        _complain(error, debug)
        code = 2 if isinstance(error, (ConfigError, NoStateError)) else 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing can be flushed at exit
        code = 1
    except OSError as error:
        place = f" {error.filename}" if error.filename else " its output"
        _complain(StateError(f"cannot read or write{place}: {error.strerror or error}"), debug)
        code = 1
    except Exception as error:
        _complain(_unexpected(error), debug)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _unexpected(error: Exception) -> CounterplayError:
    text = " ".join(str(error).split())
    failure = CounterplayError(
        f"{type(error).__name__}: {text}"[:1000],
        hint="this is a fault of counterplay or of a plugin; `--debug` shows where",
    )
    failure.__cause__ = error
    return failure


def _complain(error: CounterplayError, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exception(error)
    from counterplay.cli.output import visible

    text = "\n".join(map(visible, str(error).split("\n")))
    click.echo(text if "\n" in text or error.path else f"error: {text}", err=True)
