"""A plugin made on the spot, with one module of each kind, and helpers to check playbooks against it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from counterplay.language import Playbook, PlaybookError, PlaybookSet, load_text
from counterplay.plugins import PluginHost

PACKAGE = "counterplay_language_fixture"

CODE = '''
from counterplay import Action, Connection, Sink, Transform, Trigger, hookimpl


class Tenant(Connection):
    """A tenant."""
    name = "tenant"


class Key(Connection):
    """An intake's key."""
    name = "key"


class Alerts(Trigger):
    """Emits alerts."""
    name = "alerts"
    connection = "demo.tenant"


class Clock(Trigger):
    """Emits the time."""
    name = "clock"


class Pick(Transform):
    """Keeps members."""
    name = "pick"


class GetUser(Action):
    """Reads a user."""
    name = "get_user"
    connection = "demo.tenant"


class Log(Action):
    """Writes a line."""
    name = "log"


class Forward(Sink):
    """Delivers."""
    name = "forward"
    connection = "demo.key"


@hookimpl
def counterplay_modules():
    return [Tenant, Key, Alerts, Clock, Pick, GetUser, Log, Forward]


@hookimpl
def counterplay_template_filters():
    return {"demo_users": lambda evidence: [entry["user"] for entry in evidence]}
'''


def _object(properties: dict[str, Any], required: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
        **more,
    }


USER = _object(
    {
        "id": {"type": "string"},
        "manager": _object({"name": {"type": "string"}}),
        "groups": {"type": "array", "items": {"$ref": "#/$defs/group"}},
    }
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "tenant": _object({}),
    "key": _object({}),
    "alerts": _object(
        {
            "severity": {"type": "array", "items": {"enum": ["low", "high"]}, "default": ["high"]},
            "poll_interval": {"type": "string", "pattern": "^[0-9]+(s|m)$", "examples": ["60s"]},
        }
    ),
    "clock": _object({}),
    "pick": _object({"keep": {"type": "array", "items": {"type": "string"}}}),
    "get_user": _object(
        {"user_id": {"description": "The user's id or principal name.", "type": "string", "minLength": 1}},
        ["user_id"],
        **{"$defs": {"result": USER, "group": _object({"title": {"type": "string"}})}},
    ),
    "log": _object(
        {
            "text": {"type": "string"},
            "level": {"enum": ["info", "warning"], "default": "info"},
            "times": {"type": "integer", "minimum": 1, "default": 1},
            "password": {"type": "string", "pattern": "^[a-z]+$", "writeOnly": True},
            "options": _object({"colour": {"type": "boolean", "default": True}}),
        }
    ),
    "forward": _object({"batch": {"type": "integer"}}),
}


class Catalogue:
    """The connections of a pretended workspace."""

    known: ClassVar = {"contoso": {"demo.tenant"}, "siem": {"demo.key"}, "sim": {"demo.tenant", "demo.key"}}

    def kinds(self, name: str) -> Collection[str]:
        return self.known.get(name, set())

    def labelled(self, labels: Sequence[str], kind: str) -> Sequence[str]:
        return ["contoso"] if list(labels) == ["customer"] and kind == "demo.tenant" else []

    def names(self) -> Collection[str]:
        return self.known

    def playbooks(self) -> Collection[str]:
        return {"contain"}


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginHost]:
    """A host with the plugin `demo` and nothing else."""
    folder: Path = tmp_path_factory.mktemp("plugin")
    package = folder / PACKAGE
    (package / "schemas").mkdir(parents=True)
    (package / "__init__.py").write_text(CODE)
    for name, schema in SCHEMAS.items():
        (package / "schemas" / f"{name}.json").write_text(json.dumps(schema))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    loaded = PluginHost.load([EntryPoint("demo", PACKAGE, "counterplay")])
    assert not loaded.problems
    yield loaded
    sys.path.remove(str(folder))
    sys.modules.pop(PACKAGE, None)


Load = Callable[..., Playbook | PlaybookSet]


@pytest.fixture
def read(host: PluginHost) -> Load:
    """Check a text as the file `p.yaml`."""

    def read(text: str | bytes, catalogue: Catalogue | None = None) -> Playbook | PlaybookSet:
        return load_text(text.encode() if isinstance(text, str) else text, "p.yaml", host, catalogue)

    return read


@pytest.fixture
def findings(read: Load) -> Callable[..., list[str]]:
    """The lines that `check` prints on a text that is wrong."""

    def findings(text: str | bytes, catalogue: Catalogue | None = None) -> list[str]:
        with pytest.raises(PlaybookError) as caught:
            read(text, catalogue)
        assert str(caught.value) == "\n".join(map(str, caught.value.findings))
        return str(caught.value).split("\n")

    return findings


@pytest.fixture
def catalogue() -> Catalogue:
    """Connections contoso (tenant), siem (key), sim (both)."""
    return Catalogue()
