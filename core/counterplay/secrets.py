"""Secrets: resolved at the moment of use, kept only to be masked, refused when too short to mask."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from counterplay.errors import ConfigError
from counterplay.modules import SecretSource

SHORTEST = 8
MASK = "***"
_IN_URLS = "!#$%&'()*+,/:;=?@[]~"  # what `requests` leaves as it is when it quotes a URL as a whole
_REFERENCE = re.compile(r"\$\{([a-z][a-z0-9_-]*):([^{}]+)\}")
_ANY = re.compile(r"\$\{[a-z][a-z0-9_-]*:[^{}]*\}")


def reference(value: object) -> tuple[str, str] | None:
    """`("env", "NAME")` when the value is one reference, None when it is plain.

    ConfigError: it holds a reference that is not the whole value, or one that cannot be read.
    """
    if not isinstance(value, str) or "${" not in value:
        return None
    match = _REFERENCE.fullmatch(value)
    if match is None:
        found = _ANY.search(value)
        raise ConfigError(
            f"{found.group() if found else '${…'} is not a reference that stands alone",
            hint="write the whole value as ${env:NAME}, ${file:PATH} or ${keyring:SERVICE/USER}",
        )
    return match.group(1), match.group(2)


class Secrets(SecretSource):
    """Resolves references relative to the workspace, and masks what it has resolved."""

    def __init__(self, base: Path, vault: Callable[[str, str], str | None] | None = None) -> None:
        self._base = base
        self._vault = vault
        self._known: tuple[str, ...] = ()  # replaced as a whole: other threads are reading it
        self._lock = threading.Lock()

    def resolve(self, value: object, *, where: str) -> str:
        """The secret itself. `where` names the setting in messages (`connections.contoso.client_secret`)."""
        text = self.plain(value, where=where)
        if len(text) < SHORTEST:
            raise ConfigError(
                f"{where}: the secret has fewer than {SHORTEST} characters, so it could not be masked",
                hint="use a longer one",
            )
        self.remember(text)
        return text

    def plain(self, value: object, *, where: str) -> str:
        """A setting that may be given by reference and is no secret."""
        if value is None or value == "":
            raise ConfigError(f"{where} is missing", hint="set it in counterplay.yaml, e.g. to ${env:NAME}")
        try:
            found = reference(value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
        if found is None:
            return str(value)
        scheme, name = found
        if scheme == "env":
            return self._from_environment(name, where)
        if scheme == "file":
            return self._from_file(name, where)
        if scheme == "keyring":
            return self._from_keyring(name, where)
        text = self._vault(scheme, name) if self._vault is not None else None
        if text is None:
            raise ConfigError(
                f"{where}: no plugin resolves ${{{scheme}:…}}",
                hint="use env, file or keyring, or install a plugin that knows this vault",
            )
        return text

    def remember(self, secret: str) -> None:
        """Mask this value from now on, in the spellings in which it could appear."""
        percent = {quote(secret, safe=""), quote(secret), quote_plus(secret), quote(secret, safe=_IN_URLS)}
        escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
        with self._lock:
            known = {secret, *percent, *escaped, *self._known}
            self._known = tuple(sorted(known, key=len, reverse=True))

    def mask(self, text: str) -> str:
        """The text with every secret that was resolved so far replaced by `***`."""
        for secret in self._known:
            text = text.replace(secret, MASK)
        return text

    def mask_json(self, value: Any) -> Any:
        """The same for every string inside a JSON value, member names included."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, dict):
            return {self.mask(key): self.mask_json(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mask_json(item) for item in value]
        return value

    def _from_environment(self, name: str, where: str) -> str:
        if not os.environ.get(name):
            raise ConfigError(f"{where}: the environment variable {name} is not set", hint=f"export {name}=…")
        return os.environ[name]

    def _from_file(self, name: str, where: str) -> str:
        path = self._base / name
        try:
            path = self._base / Path(name).expanduser()
            text = path.read_text("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:  # not chained: the error holds the content
            raise ConfigError(f"{where}: cannot read {path}: it is not UTF-8 text") from None
        except (OSError, ValueError, RuntimeError) as error:  # the latter two: no path, no home
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{where}: cannot read {path}: {reason}") from error
        if not text:
            raise ConfigError(f"{where}: {path} is empty")
        return text

    def _from_keyring(self, name: str, where: str) -> str:
        try:
            import keyring
            from keyring.errors import KeyringError
        except ImportError as error:
            raise ConfigError(
                f"{where}: the keyring support is not installed", hint="pip install 'counterplay[keyring]'"
            ) from error
        service, _, user = name.rpartition("/")
        if not service or not user:
            raise ConfigError(f"{where}: ${{keyring:{name}}} names no user", hint="${keyring:SERVICE/USER}")
        try:
            text = keyring.get_password(service, user)
        except KeyringError as error:
            raise ConfigError(f"{where}: the keyring cannot be read: {type(error).__name__}") from error
        if not text:
            raise ConfigError(
                f"{where}: the keyring has no password of {user!r} for {service!r}",
                hint=f"keyring set {service} {user}",
            )
        return text


class MaskingFilter(logging.Filter):
    """Masks secrets in everything that is logged, tracebacks included."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # a message whose arguments do not fit it is still worth reading
            message = f"{record.msg} {record.args}"
        record.msg = self._secrets.mask(message)
        record.args = ()
        if record.exc_info:
            formatted = logging.Formatter().formatException(record.exc_info)
            record.exc_text = self._secrets.mask(formatted)
            record.exc_info = None  # handlers that format it themselves would print it in clear
        if record.stack_info:
            record.stack_info = self._secrets.mask(record.stack_info)
        return True
