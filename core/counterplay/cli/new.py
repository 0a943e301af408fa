"""`playbook new`: a playbook to go on from, with a test that passes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from counterplay.cli.asking import ask
from counterplay.cli.run import pairs
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.cases.runner import Bench
    from counterplay.events import JsonObject
    from counterplay.workspace import Workspace

PLAYBOOK_HEADER = "# yaml-language-server: $schema=../.counterplay/playbook.schema.json\n"
TEST_HEADER = "# yaml-language-server: $schema=../../.counterplay/playbook-test.schema.json\n"


_OTHERWISE = "without a terminal, give --trigger, and --step and --sink as often as needed"


@click.command()
@click.argument("name")
@click.option("--trigger", metavar="MODULE", help="Where its events come from.")
@click.option(
    "--step",
    "steps",
    multiple=True,
    metavar="[ID=]MODULE",
    help="What it does; repeat it in order.",
)
@click.option("--sink", "sinks", multiple=True, metavar="MODULE", help="Where it delivers to.")
@click.option(
    "--connection",
    "connections",
    multiple=True,
    metavar="KIND=NAME",
    help="The connection for modules of that kind, e.g. m365.tenant=contoso.",
)
@click.option("--description", help="What it is for.")
def new(
    name: str,
    trigger: str | None,
    steps: tuple[str, ...],
    sinks: tuple[str, ...],
    connections: tuple[str, ...],
    description: str | None,
) -> None:
    """Write the playbook NAME into the workspace, and a test of it: both are complete, and pass.

    Asks for what is not given. Required arguments hold the examples of their schemas; what the test
    expects is what the playbook does.

    Exits 0 when both were written, 2 when they could not be; then nothing was.
    """
    from counterplay.cases.runner import Bench
    from counterplay.cases.sketch import Wish, sketched
    from counterplay.cli.loading import open_workspace
    from counterplay.cli.schema import write_schema

    workspace = open_workspace()
    if workspace.root is None:
        raise ConfigError("there is no workspace here", hint="`playbook init` makes one")
    folder = workspace.root / "playbooks"
    playbook, test = folder / f"{name}.yaml", folder / "tests" / f"{name}.yaml"
    for file in (playbook, test):
        if file.exists():
            raise ConfigError("it is there already", hint="choose another name", path=_shown(file))
    if trigger is None:
        trigger, steps, sinks = _asked(workspace, steps, sinks)
    wish = Wish(
        name,
        description or f"What to do about the events of {trigger}.",
        trigger,
        steps,
        sinks,
        pairs(connections, "--connection", "KIND=NAME"),
    )
    text = PLAYBOOK_HEADER + _yaml(sketched(wish, workspace))
    with Bench(workspace) as bench:
        found = _test_of(bench, text, playbook, test)
    for file, content in ((playbook, text), (test, TEST_HEADER + _yaml(found))):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")
        click.echo(f"wrote {_shown(file)}")
    write_schema(workspace)
    click.echo(f"\nTry: playbook show {name}; playbook test {name}")


def _test_of(bench: Bench, text: str, playbook: Path, test: Path) -> JsonObject:
    """The test of a playbook that is not written yet. ConfigError: it cannot be sketched, and why."""
    from counterplay.cases.model import Case, given_from
    from counterplay.cases.record import expected
    from counterplay.cases.sketch import sketched_case
    from counterplay.language import Playbook, load_text

    loaded = load_text(text.encode(), str(_shown(playbook)), bench.workspace.host, bench.workspace)
    assert isinstance(loaded, Playbook)
    given = sketched_case(loaded.document, bench.workspace.host)
    name = "an event comes in"
    seen = bench.play(Case(name, given_from({}, given), {}), loaded)
    if seen.trouble:
        raise ConfigError(
            f"a test of it cannot be sketched: {seen.trouble[0]}",
            hint="leave that step out, and add it by hand",
        )
    return {"playbook": loaded.name, "cases": [{"name": name, "given": given, "expect": expected(seen)}]}


def _asked(
    workspace: Workspace, steps: tuple[str, ...], sinks: tuple[str, ...]
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Trigger, steps and sinks as somebody types them; an empty line ends a list."""
    modules = workspace.host.modules
    by_kind: dict[str, list[str]] = {}
    for uses, info in sorted(modules.items()):
        by_kind.setdefault(info.kind, []).append(uses)
    trigger = _one("Trigger", by_kind["trigger"], "std.manual")
    return (
        trigger,
        steps or _several("Step", [*by_kind["action"], *by_kind.get("transform", [])]),
        sinks or _several("Sink", by_kind["sink"]),
    )


def _one(what: str, choices: list[str], default: str) -> str:
    click.echo(f"{what}s: {', '.join(choices)}", err=True)
    return ask(what, default=default, otherwise=_OTHERWISE)


def _several(what: str, choices: list[str]) -> tuple[str, ...]:
    click.echo(f"{what}s: {', '.join(choices)}", err=True)
    found: list[str] = []
    while True:
        question = f"{what} {len(found) + 1} (empty: no more)"
        answer = ask(question, default="", show_default=False, otherwise=_OTHERWISE)
        if not answer:
            return tuple(found)
        found.append(answer)


def _yaml(document: JsonObject) -> str:
    import yaml

    text: Any = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    return str(text)


def _shown(file: Path) -> Path:
    from counterplay.workspace import shown

    return shown(file)
