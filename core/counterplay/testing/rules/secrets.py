"""Where a secret must not be: anywhere but on its way to its service."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from counterplay.modules import Action
from counterplay.testing.case import Call, Case
from counterplay.testing.rules._rule import Broken, NotApplicable, rule
from counterplay.testing.watch import Fault

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")


@rule()
def secrets_are_masked(case: Case) -> None:
    """No result, error, log line, printed text or file holds a secret of the connection, in any spelling."""
    if not case.shown:
        raise NotApplicable(str(case.hidden))
    secrets = case.stage.secrets()
    if not secrets:
        raise NotApplicable("its bench has no secrets")
    _provoke(case)
    places = [*(("what it said", text) for text in case.heard.texts), *_files(case.stage.folder)]
    for place, text in places:
        for name, secret in secrets.items():
            spelling = _found(secret, text)
            if spelling is not None:
                raise Broken(f"{place} holds the secret {name} ({spelling})")


def _provoke(case: Case) -> None:
    """Use the module while all goes well and while its service refuses, and keep what it says."""
    stage = case.stage
    if issubclass(case.info.cls, Action):
        case.heard.add(case.result)
    with case.listening(stage), case.calls() as calls:
        for call in calls:
            if not issubclass(case.info.cls, Action):
                _listen(case, call)
            for status in (401, 500):
                with stage.watch.failing(Fault("answer", lasting=True, status=status, body=b"refused")):
                    _listen(case, call)


def _listen(case: Case, call: Call) -> None:
    """Keep what a call gave back, or raised; a trigger's events and units are what its source says."""
    try:
        given = call.make()
    except (Exception, SystemExit) as error:
        case.heard.add(case.stage.said(error))
    else:
        case.heard.add(None if case.info.kind == "trigger" else given)


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with closing(file.open("rb")) as opened:
                yield str(file.relative_to(folder)), opened.read().decode("utf-8", "replace")


def _found(secret: str, text: str) -> str | None:
    """The spelling in which the text holds the secret."""
    if secret in text:
        return "in clear"
    if secret.encode().hex() in text.lower():
        return "in hexadecimal"
    if secret[::-1] in text:
        return "backwards"
    for match in _BASE64.finditer(text):
        try:
            plain = base64.b64decode(match.group().replace("-", "+").replace("_", "/") + "==", validate=False)
        except (binascii.Error, ValueError):
            continue
        if secret.encode() in plain:
            return "in base64"
    return None
