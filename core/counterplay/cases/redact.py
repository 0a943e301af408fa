"""Takes people, machines and tenants out of recorded data, and leaves what a playbook decides by.

The same value becomes the same word everywhere, so that what was equal stays equal. A text is kept only
where it is known to tell nobody anything: times, words of a closed set (`userEvidence`, `high`), and
what the playbook itself names. Everything else is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from counterplay.events import JsonObject
from counterplay.language.build import all_steps

_MAIL = re.compile(r"\w[\w.+'-]*@[\w-]+(?:\.[\w-]+)+")
_GUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}:?[0-9a-fA-F]{0,4}(?![\w:])")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>]+")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?)?")
_WORD = re.compile(r"#?[a-z][A-Za-z]{0,39}(?:\.[a-z][A-Za-z]{0,39}){0,5}")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_NAMING = re.compile(
    r"name|mail|address|account|host|device|computer|domain|subject|title|owner|user|tenant|organi[sz]ation"
    r"|sender|recipient|path|file|url|sid|phone|city|street|department|job|office",
    re.IGNORECASE,
)
"""Members whose values are names, whatever these look like."""


class Redactor:
    """Replaces values; one for everything that belongs together.

    `kept` texts stay as they are; a text that holds one of `sought` still does when it was replaced.
    """

    def __init__(self, kept: Collection[str] = (), sought: Collection[str] = ()) -> None:
        self._kept = {*kept, *sought}
        self._sought = sorted({word for word in sought if len(word) > 2})
        self._made: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def value(self, value: Any, member: str = "") -> Any:
        """The value with every text in it replaced that might tell something; `member` is its name."""
        if isinstance(value, str):
            return self._text(value, member)
        if isinstance(value, Mapping):
            return {self._member(name): self.value(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self.value(part, member) for part in value]
        return value

    def prose(self, text: str) -> str:
        """A sentence such as an error, without names that can be told or were replaced elsewhere."""
        for (kind, original), made in sorted(self._made.items(), key=lambda one: -len(one[0][1])):
            if kind != "domain" and len(original) > 3:
                text = re.sub(re.escape(original), made, text, flags=re.IGNORECASE)
        return self._replaced_within(_QUOTED.sub(lambda found: f"'{self._quoted(found)}'", text))

    def person(self, name: str) -> str:
        """Somebody who answered."""
        return self._numbered("person", name, lambda n: f"person{n}")

    def _quoted(self, found: re.Match[str]) -> str:
        inside = found.group(1) or found.group(2)
        return inside if inside in self._made.values() else str(self._text(inside, "name"))

    def _member(self, name: str) -> str:
        return self._replaced_within(name)

    def _text(self, text: str, member: str) -> str:
        if not text or text in self._kept or _TIME.fullmatch(text):
            return text
        if _WORD.fullmatch(text) and not _NAMING.search(member):
            return text
        for pattern, replace in self._patterns:
            if pattern.fullmatch(text):
                return replace(text)
        if text.isascii() and text.isdigit():
            return self._numbered("digits", text, lambda n: str(n).zfill(len(text))[-len(text) :])
        words = [word for word in self._sought if word.casefold() in text.casefold()]
        return self._numbered("text", text, lambda n: " ".join((f"text {n}", *words)))

    def _replaced_within(self, text: str) -> str:
        for pattern, replace in self._patterns:
            text = pattern.sub(lambda found, replace=replace: replace(found.group()), text)  # type: ignore[misc]
        return text

    @property
    def _patterns(self) -> tuple[tuple[re.Pattern[str], Callable[[str], str]], ...]:
        return (
            (_URL, lambda text: self._numbered("url", text, lambda n: f"https://site{n}.example/")),
            (_MAIL, self._mail),
            (_GUID, lambda text: self._numbered("guid", text.lower(), lambda n: f"{_ZEROS}{n:012d}")),
            (_IPV4, lambda text: self._numbered("ip", text, lambda n: f"192.0.2.{n % 255}")),
            (_IPV6, lambda text: self._numbered("ip6", text.lower(), lambda n: f"2001:db8::{n:x}")),
        )

    def _mail(self, text: str) -> str:
        """Two addresses of one domain stay so, and so do two of one name."""
        if text.endswith(".example") and text in self._made.values():
            return text
        local, _, domain = text.casefold().partition("@")
        user = self._numbered("user", local, lambda n: f"user{n}")
        return f"{user}@{self._numbered('domain', domain, lambda n: f'domain{n}.example')}"

    def _numbered(self, kind: str, text: str, made: Callable[[int], str]) -> str:
        if text in self._made.values():
            return text
        key = (kind, text)
        if key not in self._made:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._made[key] = made(self._counts[kind])
        return self._made[key]


_ZEROS = "00000000-0000-4000-8000-"


def constants_of(document: JsonObject) -> set[str]:
    """The texts that a playbook's expressions hold events and results against."""
    return {found.group(1) or found.group(2) for text in _texts(document) for found in _QUOTED.finditer(text)}


def arguments_of(document: JsonObject) -> set[str]:
    """The texts that a playbook itself gives to modules, and the defaults of its inputs."""
    given = [step.get("with", {}) for step in (*all_steps(document), document.get("trigger", {}))]
    defaults = [one.get("default") for one in document.get("inputs", {}).values()]
    return {text for text in _texts([*given, *defaults]) if "{{" not in text}


def closed_words(schema: Any) -> Iterator[str]:
    """The words that a module's schema has in closed sets: they tell nobody anything."""
    if isinstance(schema, dict):
        for word in [*schema.get("enum", []), schema.get("const")]:
            if isinstance(word, str):
                yield word
        for part in schema.values():
            yield from closed_words(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from closed_words(part)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
