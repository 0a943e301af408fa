"""The hooks: what a plugin can tell the host, and what the host tells plugins.

A plugin is a Python module (or package) that an entry point of the group `counterplay` names; its
functions marked with `@counterplay.hookimpl` are called by the names below. Keep import and
`counterplay_modules` free of I/O: both happen before any playbook is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from counterplay.events import JsonObject

if TYPE_CHECKING:
    from counterplay.modules import Module, StepContext

hookspec = pluggy.HookspecMarker("counterplay")
hookimpl = pluggy.HookimplMarker("counterplay")


@dataclass(frozen=True, slots=True)
class ConnectionOffer:
    """A connection that a plugin provides without configuration.

    `open` is called when a playbook needs it, and returns the settings of the connection of kind
    `uses` (as they would stand in `counterplay.yaml`, secrets in clear). It may start a server.
    """

    name: str
    uses: str
    open: Callable[[], JsonObject]
    description: str = ""


@dataclass(frozen=True, slots=True)
class EffectIntent:
    """An effect that is about to happen: who, what, on which target, from which state."""

    run_id: str
    playbook: str
    step_id: str
    uses: str
    connection: str
    tenant: str
    target: str | None
    before: JsonObject
    arguments: JsonObject = field(default_factory=dict)
    subject: str | None = None
    planned: bool = False
    """A plan asks: what would be said? Nothing happens afterwards."""


@dataclass(frozen=True, slots=True)
class EffectVerdict:
    """A guard's answer: `refuse` stops the effect, with the reason that the run shows.

    `ask` pauses the run instead, until a person has agreed to this effect; a refusal wins over it.
    """

    refuse: bool
    reason: str
    ask: bool = False


class EffectJournal(Protocol):
    """How much happened lately, as guards count it: what took place, and what may have."""

    def effects(
        self,
        since: datetime,
        *,
        uses: str | None = None,
        playbook: str | None = None,
        tenant: str | None = None,
        besides: tuple[str, str] | None = None,
    ) -> int:
        """Effects from a time on; `besides` leaves out those of (run, step)."""
        ...

    def runs_with_effects(self, since: datetime, playbook: str, *, besides: str | None = None) -> int:
        """Runs of a playbook with effects from a time on; `besides` leaves out a run."""
        ...


class Simulation(Protocol):
    """Pretend services that a test of a playbook runs against, for as long as one case takes."""

    def kinds(self) -> Collection[str]:
        """The kinds of connection that it serves."""
        ...

    def settings(self, kind: str, name: str) -> JsonObject:
        """The settings of a connection to it, as they would stand in `counterplay.yaml`."""
        ...

    def tell_time(self, moment: datetime) -> None:
        """It is that late now in the case."""
        ...

    def change(self, state: JsonObject) -> None:
        """Others change it in the course of the case: `tenant` of a `given.meanwhile`.

        Asked only for cases that say so. ConfigError: the state makes no sense.
        """
        ...

    def state(self) -> JsonObject:
        """What `expect.tenant` is held against."""
        ...

    def close(self) -> None:
        """The case is over."""
        ...


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A durable run as plugins see it. `status` is empty when it starts."""

    id: str
    playbook: str
    tenant: str
    status: str = ""
    steps: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One `playbook run NAME` that has come to its end.

    `complete` says that everything which was listed is accounted for and every run ended well.
    `connections` are the names that it used; `figures` the closing summary (counts by name).
    """

    playbook: str
    connections: tuple[str, ...]
    complete: bool
    figures: Mapping[str, Any]


@hookspec
def counterplay_modules() -> Iterable[type[Module]]:  # type: ignore[empty-body]  # a specification
    """Name the triggers, transforms, actions, sinks and connections that this plugin provides.

    Called once, when the host starts and before any playbook is read. Return classes, never
    instances. Two plugins that claim one name are both disabled.
    """


@hookspec
def counterplay_connections(state_dir: Path) -> Iterable[ConnectionOffer]:  # type: ignore[empty-body]
    """Offer connections that need no configuration; the workspace's own of the same name win.

    Called when connections are first resolved. `state_dir` is where this workspace keeps its state.
    Starting anything belongs into `ConnectionOffer.open`.
    """


@hookspec(firstresult=True)
def counterplay_simulation(state_dir: Path, state: JsonObject, moment: datetime) -> Simulation | None:
    """Simulate the services of a case of `playbook test` in that state, at that moment; or return None.

    `state` is the case's `given.tenant`; `state_dir` is empty, and is deleted after the case. The first
    result wins. ConfigError: the state makes no sense; say what does.
    """


@hookspec(firstresult=True)
def counterplay_secret(scheme: str, reference: str) -> str | None:
    """Resolve the secret reference `${scheme:reference}` of `counterplay.yaml`, or return None.

    Called at the moment of use, for schemes other than env, file and keyring. The first result
    wins. Do not log or keep the value.
    """


@hookspec
def counterplay_before_effect(
    intent: EffectIntent, context: StepContext, guardrails: Mapping[str, Any], journal: EffectJournal
) -> EffectVerdict | None:
    """May this effect happen? Called before each one, after its target's state was captured.

    Return None to have no objection. Any refusal stops the step; raising counts as a refusal. One
    effect at a time is asked about, so that a limit is not passed by two at once. `context.http` reads
    from the target's service and refuses to write. `guardrails` is that part of `counterplay.yaml`;
    an implementation names only those arguments that it needs.
    """


@hookspec
def counterplay_after_effect(intent: EffectIntent, outcome: JsonObject) -> None:
    """An effect ended. `outcome` is `{"status": "done"|"failed"|"refused"|"unknown", ...}`."""


@hookspec
def counterplay_run_started(run: RunRecord) -> None:
    """A durable run began: a run of a playbook, called ones included, not its branches and elements.

    Called at least once a run: a process that dies within the call, or right after it, makes the next one
    call again. `run.id` is the same then; whoever must not act twice keeps it.
    """


@hookspec
def counterplay_run_finished(run: RunRecord) -> None:
    """A durable run ended, however it ended; not one that was cancelled before it began.

    Called at least once a run, like `counterplay_run_started`: a process that dies between the end and this
    call leaves it to the next one. A run that is retried ends, and is told, again.
    """


@hookspec
def counterplay_invocation_started(command: str, name: str) -> None:
    """`playbook run NAME` or `playbook up` begins, and has opened no connection yet.

    Not called for commands that look at what was done, or take it back. `command` is `run` or `up`.
    """


@hookspec
def counterplay_invocation_finished(invocation: Invocation) -> Iterable[str] | None:
    """`playbook run` comes to its end. Lines that are returned stand below its summary.

    Called once for each command, before it exits, not after a crash.
    """


@hookspec
def counterplay_removed_modules() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Names of modules that a plugin no longer has, each with what to write instead.

    Called when a playbook names a module that does not exist; the text becomes the hint of its error.
    """


@hookspec
def counterplay_template_filters() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Filters for expressions, by name: `{{ event.evidence | m365_users | first }}`.

    Called once at start. A filter is pure: it gets plain data and returns plain data. Its name
    begins with the plugin's: `m365_users`.
    """
