"""A workspace: the directory with `counterplay.yaml`, `playbooks/` and `.counterplay/` (its state).

Without one, the shipped playbooks and the connections that plugins offer still work, with state under
the user's state directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from counterplay._data_files import core_schemas, shipped_playbooks
from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.hookspecs import ConnectionOffer
from counterplay.language.arguments import problems
from counterplay.language.durations import parse_duration
from counterplay.language.findings import Finding, PlaybookError, did_you_mean
from counterplay.language.yaml_text import MAX_BYTES, Document, read
from counterplay.places import FILE, STATE, find_root, find_state_dir
from counterplay.plugins import PluginHost
from counterplay.secrets import SHORTEST, Secrets, reference
from counterplay.store_setting import store_findings, store_shown, store_url


@dataclass(frozen=True, slots=True)
class ConnectionEntry:
    """A connection as configured. `settings` still holds references."""

    name: str
    uses: str
    labels: tuple[str, ...]
    settings: JsonObject


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept: runs and the engine's own after their end, units once all acknowledged them."""

    runs: timedelta = timedelta(days=365)
    engine: timedelta = timedelta(days=7)
    units: timedelta = timedelta(days=365)


def shown(file: object) -> Path:
    """A file as messages name it: relative to the current directory where it lies below that."""
    path = Path(str(file))
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


class Workspace:
    """The workspace that commands work in. It implements the catalogue that playbooks are checked by."""

    def __init__(self, host: PluginHost, root: Path | None = None) -> None:
        self.host = host
        self.root = root if root is not None else find_root()
        self.state_dir = self.root / STATE if self.root else find_state_dir()

    @property
    def base(self) -> Path:
        """Where relative paths of the configuration begin."""
        return self.root or Path.cwd()

    @cached_property
    def config(self) -> JsonObject:
        """`counterplay.yaml`, checked. PlaybookError: everything that is wrong with it."""
        if self.root is None:
            return {}
        path = shown(self.root / FILE)
        try:
            with (self.root / FILE).open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"cannot read it: {error.strerror}", hint="check its permissions", path=path
            ) from error
        if not _has_content(text):
            return {}
        document = read(text, str(path), "`connections:`; `playbook init` writes one")
        wrong = list(self._findings(document))
        if wrong:
            raise PlaybookError(wrong)
        data: JsonObject = document.data
        return data

    @cached_property
    def secrets(self) -> Secrets:
        """Resolves the references of `counterplay.yaml`, and masks what they led to."""
        return Secrets(
            self.base, lambda scheme, name: self.host.hook.counterplay_secret(scheme=scheme, reference=name)
        )

    @property
    def store_url(self) -> str:
        """The URL of the store, its path absolute, its password in clear.

        ConfigError: a reference in it cannot be resolved, or does not lead to a store.
        """
        given = self.config.get("store")
        if given is None:
            return f"sqlite:///{self.state_dir / 'state.db'}"
        return store_url(given, self.base, self.secrets)

    @property
    def config_without_secrets(self) -> JsonObject:
        """`counterplay.yaml` as the audit log may know it, without secrets that stand there in clear."""
        store = {"store": store_shown(self.config["store"])} if "store" in self.config else {}
        return {
            **self.config,
            **store,
            "connections": {
                name: {"uses": one.uses, "labels": list(one.labels), **self._shown(one)}
                for name, one in self.entries.items()
            },
        }

    def _shown(self, entry: ConnectionEntry) -> JsonObject:
        described = self.host.module(entry.uses).schema.get("properties", {})
        return {
            key: "***" if described.get(key, {}).get("writeOnly") and reference(value) is None else value
            for key, value in entry.settings.items()
        }

    @cached_property
    def retention(self) -> Retention:
        """How long ended runs and delivered units are kept."""
        given = {key: parse_duration(value) for key, value in (self.config.get("retention") or {}).items()}
        return Retention(**given)

    @property
    def dead_after(self) -> timedelta:
        """How long a worker may be silent before the others take over its work."""
        return parse_duration((self.config.get("workers") or {}).get("dead_after", "30s"))

    @property
    def guardrails(self) -> JsonObject:
        """What bounds the effects of every playbook; the hook `counterplay_before_effect` gets it."""
        found: JsonObject = self.config.get("guardrails") or {}
        return found

    @property
    def internal(self) -> JsonObject:
        """What counts as inside, as far as `counterplay.yaml` says it: `{"domains", "networks"}`."""
        found: JsonObject = self.config.get("internal") or {}
        return found

    @cached_property
    def entries(self) -> dict[str, ConnectionEntry]:
        """The configured connections by name."""
        return {
            name: ConnectionEntry(
                name,
                settings["uses"],
                tuple(settings.get("labels") or ()),
                {key: value for key, value in settings.items() if key not in ("uses", "labels")},
            )
            for name, settings in (self.config.get("connections") or {}).items()
        }

    @cached_property
    def offers(self) -> dict[tuple[str, str], ConnectionOffer]:
        """Connections that plugins offer, by (name, kind); configured names win."""
        found: dict[tuple[str, str], ConnectionOffer] = {}
        for offered in self.host.hook.counterplay_connections(state_dir=self.state_dir):
            for offer in offered or ():
                if offer.name not in self.entries and offer.uses in self.host.modules:
                    found[offer.name, offer.uses] = offer
        return found

    # --- the catalogue of connections ------------------------------------------------------------

    def names(self) -> Collection[str]:
        """All names of connections."""
        return sorted({*self.entries, *(name for name, _ in self.offers)})

    def kinds(self, name: str) -> Collection[str]:
        """The kinds of connection of that name."""
        if name in self.entries:
            return {self.entries[name].uses}
        return {kind for offered, kind in self.offers if offered == name}

    def labelled(self, labels: Sequence[str], kind: str) -> Sequence[str]:
        """Names of the connections of a kind that carry all the labels."""
        return [
            entry.name
            for entry in self.entries.values()
            if entry.uses == kind and set(labels) <= set(entry.labels)
        ]

    # --- playbooks -------------------------------------------------------------------------------

    def playbooks(self) -> dict[str, Path | Traversable]:
        """Playbook files by name: the shipped ones, then the workspace's, which win."""
        return dict(sorted({**self.shipped, **self.own_playbooks()}.items()))

    def own_playbooks(self) -> dict[str, Path | Traversable]:
        """The workspace's playbook files by name."""
        return _playbook_files(self.root / "playbooks") if self.root else {}

    @cached_property
    def shipped(self) -> dict[str, Path | Traversable]:
        """The playbooks that counterplay ships, by name."""
        return _playbook_files(shipped_playbooks())

    def playbook_file(self, name: str) -> Path | Traversable:
        """The file of a playbook, by name or by path. ConfigError: there is none."""
        if name.endswith((".yaml", ".yml")) or os.sep in name:
            path = Path(name)
            if not path.is_file():
                raise ConfigError("there is no such file", path=path)
            return path
        known = self.playbooks()
        if name not in known:
            hint = did_you_mean(name, known, "`playbook list` shows what there is")
            raise ConfigError(f"no playbook is called {name!r}", hint=hint)
        return known[name]

    # --- checking --------------------------------------------------------------------------------

    def _findings(self, document: Document) -> Iterator[Finding]:
        schema = json.loads((core_schemas() / "workspace.json").read_text("utf-8"))
        for problem in problems(document.data, schema):
            if problem.path[:1] != ("store",):
                yield document.finding(problem.path, problem.message, problem.hint, key=problem.at_key)
        if "store" in document.data:
            yield from store_findings(document, document.data["store"], SHORTEST)
        yield from self._retention_findings(document, document.data.get("retention"))
        yield from self._guardrail_findings(document, document.data.get("guardrails"))
        connections = document.data.get("connections")
        if isinstance(connections, dict):
            for name, settings in connections.items():
                if isinstance(settings, dict) and isinstance(settings.get("uses"), str):
                    yield from self._connection_findings(document, name, settings)

    def _retention_findings(self, document: Document, given: object) -> Iterator[Finding]:
        """What the engine keeps is of no use without the run that it belongs to."""
        try:
            kept = Retention(**{key: parse_duration(value) for key, value in dict(given or {}).items()})  # type: ignore[call-overload]  # whatever stands there
        except (ConfigError, TypeError, ValueError):
            return  # the schema has told it
        if kept.engine > kept.runs:
            assert isinstance(given, dict)
            yield document.finding(
                ("retention", "engine" if "engine" in given else "runs"),
                "the engine's rows would be kept for longer than the runs",
                "keep runs for longer, or write a shorter `engine:`",
            )

    def _guardrail_findings(self, document: Document, given: object) -> Iterator[Finding]:
        """A limit whose name is misspelt would bound nothing, and nobody would know."""
        limits = given if isinstance(given, dict) else {}
        actions = limits.get("effects_per_hour")
        for uses in actions if isinstance(actions, dict) else ():
            place = ("guardrails", "effects_per_hour", str(uses))
            if uses == "*":
                continue
            try:
                info = self.host.module(str(uses))
            except ConfigError as error:
                yield document.finding(place, error.message, error.hint or "", key=True)
                continue
            if not getattr(info.cls, "effect", False):
                hint = "name an action that does, or `*` for all of them"
                text = f"{uses} changes nothing, so that nothing counts"
                yield document.finding(place, text, hint, key=True)
        for key in ("effects_per_hour_by_playbook", "runs_per_hour"):
            names = limits.get(key)
            for name in names if isinstance(names, dict) else ():
                known = self.playbooks()
                meant = str(name).removeprefix("undo-")  # what takes a run back counts under its own name
                hint = did_you_mean(meant, known, "") if meant not in known else ""
                if hint:  # any other name may be that of a file elsewhere
                    place = ("guardrails", key, str(name))
                    yield document.finding(place, f"no playbook is called {name!r}", hint, key=True)

    def _connection_kinds(self) -> list[str]:
        return sorted(uses for uses, info in self.host.modules.items() if info.kind == "connection")

    def _connection_findings(self, document: Document, name: str, settings: JsonObject) -> Iterator[Finding]:
        place = ("connections", name)
        try:
            info = self.host.module(settings["uses"])
        except ConfigError as error:
            yield document.finding((*place, "uses"), error.message, error.hint or "")
            return
        if info.kind != "connection":
            yield document.finding(
                (*place, "uses"),
                f"{info.uses} is {with_article(info.kind)}, not a connection",
                f"name a kind of connection: {', '.join(self._connection_kinds())}",
            )
            return
        own = {key: value for key, value in settings.items() if key not in ("uses", "labels")}
        for key, value in own.items():
            try:
                found = reference(value)
            except ConfigError as error:
                yield document.finding((*place, key), error.message, error.hint or "")
                continue
            described = info.schema.get("properties", {}).get(key, {})
            short = isinstance(value, str) and found is None and len(value) < SHORTEST
            if described.get("writeOnly") and short:
                yield document.finding(
                    (*place, key), f"the secret has fewer than {SHORTEST} characters", "use a longer one"
                )
        for problem in problems(own, info.schema):
            at_value = own.get(str(problem.path[0])) if problem.path else None
            if not (isinstance(at_value, str) and "${" in at_value):
                yield document.finding(
                    (*place, *problem.path), problem.message, problem.hint, key=problem.at_key
                )


def _playbook_files(folder: Path | Traversable) -> dict[str, Path | Traversable]:
    if not folder.is_dir():
        return {}
    found: dict[str, Path | Traversable] = {}
    for file in folder.iterdir():
        if file.name.endswith((".yaml", ".yml")) and file.is_file():
            stem = file.name.rpartition(".")[0]
            if stem in found:
                raise ConfigError(
                    f"{found[stem].name} and {file.name} are both the playbook {stem!r}",
                    path=str(folder),
                    hint="remove or rename one of them",
                )
            found[stem] = file
    return found


def with_article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _has_content(text: bytes) -> bool:
    return any(line.strip() and not line.lstrip().startswith(b"#") for line in text.splitlines())


def example_config() -> str:
    """What `playbook init` writes."""
    return _EXAMPLE


_EXAMPLE = """\
# A counterplay workspace. Secrets are references: ${env:NAME}, ${file:PATH} or ${keyring:SERVICE/USER}.
# The connection `sim` (a simulated tenant and intake) needs no entry here.

# connections:
#   contoso:
#     uses: m365.tenant
#     tenant_id: 00000000-0000-0000-0000-000000000000
#     client_id: 00000000-0000-0000-0000-000000000000
#     client_secret: ${env:CONTOSO_SECRET}
#   siem:
#     uses: intake.key
#     url: https://intake.example.net
#     intake_key: ${env:INTAKE_KEY}
"""


def settings_with_plain_references(entry: ConnectionEntry, schema: JsonObject, plain: Any) -> JsonObject:
    """The settings with references of values that are no secrets resolved; secrets stay references."""
    described = schema.get("properties", {})
    return {
        key: value
        if described.get(key, {}).get("writeOnly") or reference(value) is None
        else plain(value, where=f"connections.{entry.name}.{key}")
        for key, value in entry.settings.items()
    }
