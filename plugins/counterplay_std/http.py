"""std.http: one HTTP request."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from counterplay import Action, JsonObject, PermanentError, StepContext, Verdict
from counterplay.verdicts import by_status

if TYPE_CHECKING:
    from requests import Response

BODY_LIMIT = 256 * 1024
"""Bytes of an answer's body that a result holds; `truncated` says that there were more."""
_READS = ("GET", "HEAD")
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class Http(Action):
    """Send one HTTP request, without credentials.

    GET and HEAD read. The other methods are effects: a request whose answer never came is not sent
    again, and a person has to say whether it took effect, unless `repeatable` says that twice is
    harmless. Redirects are not followed. A service that wants credentials needs a plugin with a
    connection: a playbook is no place for a secret.

    Result:
        `{"status": int, "headers": {lower-case name: str}, "body": str, "json": any, "truncated": bool}`;
        `json` is null when the body is none, or is cut off after 256 KB (`truncated`).
    """

    name = "http"
    effect = True

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self._method = str(self.arguments.get("method", "GET")).upper()
        if self._method in _READS:
            self.effect = False
        if self.arguments.get("repeatable"):
            self.settle = "repeat"

    def target(self) -> str | None:
        """The URL."""
        return str(self.arguments["url"])

    def run(self, context: StepContext) -> JsonObject:
        """Send the request, and return the answer if its status is one that is expected."""
        url = self._checked_url()
        headers: dict[str, str] = dict(self.arguments.get("headers", {}))
        response = context.http.request(
            self._method,
            url,
            data=self._body(headers),
            headers=headers,
            repeatable=self.effect is False or self.settle == "repeat",
            classify=self._classify,
        )
        return _result(response)

    def _checked_url(self) -> str:
        url = str(self.arguments["url"])
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            host = ""
        if not host or parts.scheme.lower() not in ("http", "https"):
            raise PermanentError(f"{url!r} is no address for a request", hint="write https://host/path")
        if parts.username is not None or parts.password is not None:
            raise PermanentError(
                f"the address at {host} holds a user or a password",
                hint="a playbook is no place for a secret: use a plugin with a connection",
            )
        if parts.scheme.lower() == "http" and not (self.arguments.get("allow_http") or _is_loopback(host)):
            raise PermanentError(
                f"refused to send a request to {host} in clear", hint="write https://, or `allow_http: true`"
            )
        return url

    def _body(self, headers: dict[str, str]) -> bytes | None:
        if "json" in self.arguments:
            import orjson

            if "content-type" not in {name.lower() for name in headers}:
                headers["Content-Type"] = "application/json"
            return orjson.dumps(self.arguments["json"])
        body = self.arguments.get("body")
        return None if body is None else str(body).encode()

    def _classify(self, response: Response) -> Verdict:
        expected = self.arguments.get("expect")
        status = response.status_code
        if (expected is None and 200 <= status < 300) or (expected is not None and status in expected):
            return Verdict("ok")
        if 300 <= status < 400:
            to = response.headers.get("Location", "nowhere")
            return Verdict("permanent", text=f"redirects are not followed; this one leads to {to}")
        verdict = by_status(response)
        if verdict.meaning == "ok":
            wanted = ", ".join(map(str, expected or ()))
            return Verdict("permanent", text=f"the step expects {wanted}")
        return replace(verdict, text=_snippet(response))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(response: Response, content: bytes) -> str:
    encoding = response.encoding
    if encoding is None or encoding.lower() == "iso-8859-1":  # what `requests` assumes of text/*
        encoding = "utf-8"
    try:
        return content.decode(encoding, "replace")
    except LookupError:
        return content.decode("utf-8", "replace")


def _snippet(response: Response) -> str:
    text = _text(response, response.content[:16_384])
    if "html" in response.headers.get("Content-Type", ""):
        text = _TAG.sub(" ", text)
    return " ".join(text.split())[:200]


def _result(response: Response) -> JsonObject:
    content = response.content
    truncated = len(content) > BODY_LIMIT
    return {
        "status": response.status_code,
        "headers": {
            name.lower(): value for name, value in response.headers.items() if name.lower() != "set-cookie"
        },
        "body": _text(response, content[:BODY_LIMIT]),
        "json": None if truncated else _decoded(content),
        "truncated": truncated,
    }


def _decoded(content: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
