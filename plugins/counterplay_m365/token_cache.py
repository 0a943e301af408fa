"""Tokens that the processes of one user share: encrypted on disk, the key in the system's keyring only."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVICE = "counterplay"
ENTRY = "token-cache"
# Keyrings that keep their content encrypted, unlocked by the user's own session.
_TRUSTED = (
    "keyring.backends.SecretService",
    "keyring.backends.libsecret",
    "keyring.backends.kwallet",
    "keyring.backends.macOS",
    "keyring.backends.Windows",
)


class SharedCache:
    """One file for all connections of a state directory. Use `locked()` around every use of a cache in it.

    A file that cannot be decrypted (another user's, another key) counts as empty.
    """

    def __init__(self, file: Path, key: bytes) -> None:
        from cryptography.fernet import Fernet

        self._file = file
        self._lock_file = file.with_suffix(".lock")
        self._cipher = Fernet(key)

    @contextmanager
    def locked(self) -> Iterator[Any]:
        """MSAL's cache as it is on disk; written back when it has changed. One process at a time."""
        from msal import SerializableTokenCache  # type: ignore[import-untyped]  # it has no types

        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            cache = SerializableTokenCache()
            text = self._read()
            if text:
                cache.deserialize(text)
            yield cache
            if cache.has_state_changed:
                self._write(cache.serialize())

    def _read(self) -> str:
        from cryptography.fernet import InvalidToken

        try:
            return self._cipher.decrypt(self._file.read_bytes()).decode("utf-8")
        except (FileNotFoundError, InvalidToken):
            return ""

    def _write(self, text: str) -> None:
        fresh = self._file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._cipher.encrypt(text.encode("utf-8")))
        fresh.replace(self._file)


def shared_cache(file: Path) -> SharedCache | str:
    """The shared cache, or why there can be none: then tokens stay in the memory of each process."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return "the package `keyring` is not installed"
    backend = keyring.get_keyring()
    if not _is_trusted(backend):
        return f"the keyring {type(backend).__module__} does not keep its content encrypted"
    try:
        key = keyring.get_password(SERVICE, ENTRY)
        if key is None:
            from cryptography.fernet import Fernet

            keyring.set_password(SERVICE, ENTRY, Fernet.generate_key().decode("ascii"))
            key = keyring.get_password(SERVICE, ENTRY)  # of two that make one at once, the later one stays
        return SharedCache(file, (key or "").encode("ascii"))
    except (KeyringError, ValueError) as error:
        return f"the keyring cannot be used: {error}"


def _is_trusted(backend: Any) -> bool:
    """Whether secrets put into this backend lie nowhere in clear. A chain is as good as its first link."""
    module = type(backend).__module__
    if module == "keyring.backends.chainer":
        first = next(iter(backend.backends), None)
        return first is not None and _is_trusted(first)
    return module in _TRUSTED
