"""`store:` in counterplay.yaml: a SQLite file, or a PostgreSQL whose password is a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from counterplay.errors import ConfigError
from counterplay.language.findings import Finding
from counterplay.language.yaml_text import Document
from counterplay.secrets import Secrets, reference

_SQLITE = "sqlite:///"
_SERVERS = ("postgresql", "postgres", "postgresql+psycopg")
_WRITE = "write sqlite:///PATH or postgresql://USER@HOST/DATABASE"


def store_url(given: str | Mapping[str, str], base: Path, secrets: Secrets) -> str:
    """The URL of the store as SQLAlchemy knows it, references resolved, paths absolute.

    ConfigError: a reference cannot be resolved, or what it leads to is no store.
    """
    text, password = (given, None) if isinstance(given, str) else (given["url"], given["password"])
    if isinstance(given, str) and reference(given) is not None:
        text = secrets.plain(given, where="store")
        url = _parsed(text)
        if url is None or not _known(url):
            raise ConfigError(f"store: what {given} stands for is no store", hint=_WRITE)
        if url.password:
            secrets.remember(unquote(url.password))
    if text.startswith(_SQLITE):
        return f"{_SQLITE}{(base / text.removeprefix(_SQLITE)).resolve()}"
    from sqlalchemy.engine import make_url

    server = make_url(text).set(drivername="postgresql+psycopg")
    if password is not None:
        server = server.set(password=secrets.resolve(password, where="store.password"))
    return server.render_as_string(hide_password=False)


def store_shown(given: str | Mapping[str, str]) -> object:
    """The setting as logs may have it: references stand as they are, a password never."""
    if isinstance(given, str):
        return given
    return {**given, "password": given["password"] if reference(given["password"]) is not None else "***"}


def store_findings(document: Document, given: Any, shortest: int) -> Iterator[Finding]:
    """What is wrong with the setting."""
    text, place = (given, ("store",)) if not isinstance(given, dict) else (given.get("url"), ("store", "url"))
    if isinstance(given, dict):
        for name in given:
            if name not in ("url", "password"):
                yield document.finding(
                    ("store", name), f"unknown key {name!r}", "there are `url` and `password`", key=True
                )
        yield from _password_findings(document, given, shortest)
    if isinstance(given, str) and "${" in given:
        try:
            reference(given)
        except ConfigError as error:
            yield document.finding(place, error.message, error.hint or "")
        return
    url = _parsed(text)
    if url is None or not _known(url):
        yield document.finding(place, "it is no store that this version knows", _WRITE)
    elif url.password:
        hint = "write `store: {url: …, password: '${env:NAME}'}` and the URL without it"
        yield document.finding(place, "the URL holds the password in clear", hint)
    elif isinstance(given, dict) and url.scheme == "sqlite":
        yield document.finding(place, "a SQLite file has no password", f"write `store: {text}`")


def _password_findings(document: Document, given: dict[str, Any], shortest: int) -> Iterator[Finding]:
    if "password" not in given:
        hint = "give it as ${env:NAME}, or write `store: postgresql://…` where none is needed"
        yield document.finding(("store",), "`password` is missing", hint)
        return
    try:
        found = reference(given["password"])
    except ConfigError as error:
        yield document.finding(("store", "password"), error.message, error.hint or "")
        return
    if found is None and (not isinstance(given["password"], str) or len(given["password"]) < shortest):
        yield document.finding(
            ("store", "password"), f"the secret has fewer than {shortest} characters", "use a longer one"
        )


def _parsed(text: object) -> SplitResult | None:
    try:
        return urlsplit(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _known(url: SplitResult) -> bool:
    if url.scheme == "sqlite":
        return not url.netloc and len(url.path) > 1
    return url.scheme in _SERVERS and len(url.path) > 1
