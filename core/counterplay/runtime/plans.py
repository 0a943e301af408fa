"""What a plan says: the steps of a run that has not happened, in order, as data for people and programs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.language.unknown import UNKNOWN

Does = Literal[
    "reads", "changes", "delivers", "asks", "waits", "calls", "stops", "transforms", "skipped", "fails"
]
VERSION = 1
UNKNOWN_TEXT = "(known when it runs)"


CANNOT = "it cannot be taken back"
"""How the `undo_note` begins of an effect that nothing takes back."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step as it would happen.

    `conditions`: what must turn out true, as it is not known yet; none means that it happens for certain.
    `calls`: the writes in order, each `{"method", "url", "body"}`; None when they depend on what is not
    known yet. `complete` is false when more may follow that depends on an answer. `undo` names the module
    that takes the effect back; `undo_note` says why nothing does. `shares_target`: an earlier step of the
    plan changes the same object, so that its state before will be another one.
    """

    step: str
    uses: str
    does: Does
    conditions: tuple[str, ...] = ()
    connection: str | None = None
    tenant: str | None = None
    target: str | None = None
    subject: str | None = None
    arguments: Any = None
    before: Any = None
    calls: tuple[JsonObject, ...] | None = ()
    complete: bool = True
    permissions: tuple[str, ...] = ()
    undo: str | None = None
    undo_note: str | None = None
    guard: str | None = None
    note: str | None = None
    shares_target: bool = False

    @property
    def lasts(self) -> bool:
        """It changes something for good."""
        return self.does == "changes" and (self.undo_note or "").startswith(CANNOT) and self.calls != ()

    @property
    def would_fail(self) -> bool:
        """The step fails by itself, or a guard refuses it."""
        return self.does == "fails" or (self.guard or "").startswith("refuses: ")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run of a playbook would do. `filtered`: the event would not start a run at all."""

    playbook: str
    document: JsonObject
    event: JsonObject
    meta: JsonObject
    inputs: JsonObject
    connections: JsonObject
    tenant: str
    made: str
    steps: tuple[PlannedStep, ...] = ()
    filtered: str | None = None
    once_per: str | None = None

    @property
    def effects(self) -> list[PlannedStep]:
        return [one for one in self.steps if one.does == "changes"]

    @property
    def digest(self) -> str:
        """What identifies the plan: everything that it holds."""
        return digest_of(self.to_document())

    def to_document(self) -> JsonObject:
        """The plan as JSON data; what is unknown stands as a text that says so."""
        document: JsonObject = plain({"version": VERSION, **asdict(self)})
        return document


@dataclass(frozen=True, slots=True)
class AgreedStep:
    """What a plan file allows one step to do."""

    before: Any
    calls: list[JsonObject] | None
    shares_target: bool


@dataclass(frozen=True, slots=True)
class Agreed:
    """A plan that somebody approved, as the run that carries it out looks at it."""

    digest: str
    steps: dict[str, AgreedStep] = field(default_factory=dict)

    @classmethod
    def of(cls, meta: JsonObject) -> Agreed | None:
        """The plan of a run, from what its row says; None when it has none."""
        about = meta.get("_plan")
        if about is None:
            return None
        steps = {
            key: AgreedStep(one["before"], one["calls"], one["shares_target"])
            for key, one in about["steps"].items()
        }
        return cls(about["digest"], steps)


def agreed_meta(plan: JsonObject) -> JsonObject:
    """What a run's `meta` keeps of the plan that it carries out."""
    return {
        "digest": digest_of(plan),
        "steps": {
            one["step"]: {
                "before": one["before"],
                "calls": one["calls"],
                "shares_target": one["shares_target"],
            }
            for one in plan["steps"]
            if one["does"] == "changes"
        },
    }


def digest_of(document: JsonObject) -> str:
    """The hash of a plan's document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read_plans(text: bytes, path: str) -> list[JsonObject]:
    """The plans of a file that `playbook plan --json` printed. ConfigError: it is none, or was changed."""
    try:
        document = json.loads(text)
        plans: list[JsonObject] = document["plans"]
        digests = [digest_of(one) for one in plans]
        versions = {one["version"] for one in plans}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "this is no plan", path=path, hint="make one with `playbook plan NAME --event FILE --json`"
        ) from error
    if versions - {VERSION}:
        raise ConfigError("the plan was made by another version", path=path, hint="make it again")
    if digests != document.get("digests"):
        raise ConfigError("the plan was changed after it was made", path=path, hint="make it again")
    return plans


def plain(value: Any) -> Any:
    if value is UNKNOWN:
        return UNKNOWN_TEXT
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
