"""The intake: an HTTP receiver for events that an intake key opens.

It answers only after the events are durable, so that what it acknowledged survives its own death.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from counterplay_sim.http_server import Answer, Request
from counterplay_sim.meter import Meter
from counterplay_sim.tenant import Tenant

MAX_PAYLOAD = 10 * 1024 * 1024
_KEY_HEADER = "x-sekoiaio-intake-key"


class _IntakeError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class IntakeService:
    """Takes single events and batches, as JSON strings or one a line."""

    name = "intake"

    def __init__(self, tenants: Callable[[], Iterable[Tenant]], meter: Meter) -> None:
        self._tenants = tenants
        self._meter = meter
        self._routes: dict[str, Callable[[Request, bytes], tuple[Tenant, list[bytes]]]] = {
            "/": self._one,
            "/batch": self._batch,
            "/plain": self._plain,
            "/plain/batch": self._lines,
            "/jsons": self._objects,
        }

    def handle(self, request: Request) -> Answer:
        read = self._routes.get(request.path)
        if read is None:
            return self.failure(404, "not found")
        if request.method != "POST":
            return self.failure(405, "method not allowed")
        try:
            tenant, events = read(request, _payload(request))
        except _IntakeError as error:
            return self.failure(error.status, str(error))
        self._meter.count(tenant.id, self.name, request.path)
        receipts = tenant.accept(events)
        if request.path in ("/", "/plain"):
            return Answer(200, orjson.dumps({"event_id": receipts[0]}))
        return Answer(200, orjson.dumps({"event_ids": receipts}))

    def failure(self, status: int, text: str) -> Answer:
        return Answer(status, orjson.dumps({"error": text}))

    def _one(self, request: Request, payload: bytes) -> tuple[Tenant, list[bytes]]:
        document = _object(payload)
        tenant = self._tenant(document.get("intake_key") or _key(request))
        return tenant, _strings([document.get("json")])

    def _batch(self, request: Request, payload: bytes) -> tuple[Tenant, list[bytes]]:
        document = _object(payload)
        tenant = self._tenant(document.get("intake_key") or _key(request))
        return tenant, _strings(document.get("jsons"))

    def _plain(self, request: Request, payload: bytes) -> tuple[Tenant, list[bytes]]:
        tenant = self._tenant(_key(request))
        if not payload:
            raise _IntakeError(400, "the body is empty")
        return tenant, [payload]

    def _lines(self, request: Request, payload: bytes) -> tuple[Tenant, list[bytes]]:
        tenant = self._tenant(_key(request))
        return tenant, [line for line in payload.split(b"\n") if line.strip()]

    def _objects(self, request: Request, payload: bytes) -> tuple[Tenant, list[bytes]]:
        tenant = self._tenant(_key(request))
        documents = _json(payload)
        if not isinstance(documents, list):
            raise _IntakeError(400, "the body is not a list")
        return tenant, [one.encode() if isinstance(one, str) else orjson.dumps(one) for one in documents]

    def _tenant(self, key: object) -> Tenant:
        if not isinstance(key, str) or not key:
            raise _IntakeError(401, "an intake key is missing")
        for tenant in self._tenants():
            if hmac.compare_digest(key.encode(), tenant.intake_key.encode()):
                return tenant
        raise _IntakeError(403, "the intake key is not known")


def _key(request: Request) -> str:
    """The key of a request without one in its body: header, Basic password or query parameter."""
    if _KEY_HEADER in request.headers:
        return request.headers[_KEY_HEADER]
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            raise _IntakeError(401, "the Authorization header is malformed") from None
    return request.query().get("intake_key", "")


def _payload(request: Request) -> bytes:
    """The body, decompressed; its limit holds before and after."""
    payload = request.body
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "gzip" and len(payload) <= MAX_PAYLOAD:
        inflater = zlib.decompressobj(wbits=31)
        try:
            payload = inflater.decompress(payload, MAX_PAYLOAD + 1)
        except zlib.error:
            raise _IntakeError(400, "the body is not gzip") from None
        if not inflater.eof and len(payload) <= MAX_PAYLOAD:
            raise _IntakeError(400, "the gzip body is cut off")
    elif encoding not in ("identity", "gzip"):
        raise _IntakeError(415, "the only content encoding is gzip")
    if len(payload) > MAX_PAYLOAD:
        raise _IntakeError(413, f"the payload is larger than {MAX_PAYLOAD} bytes")
    return payload


def _json(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except ValueError:
        pass
    try:
        return json.loads(payload)  # takes what the fast one refuses: lone surrogates, huge numbers
    except (ValueError, RecursionError):
        raise _IntakeError(400, "the body is not JSON") from None


def _object(payload: bytes) -> dict[str, Any]:
    document = _json(payload)
    if not isinstance(document, dict):
        raise _IntakeError(400, "the body is not a JSON object")
    return document


def _strings(values: object) -> list[bytes]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _IntakeError(400, "an event is a string of JSON")
    return [value.encode("utf-8", "surrogatepass") for value in values]
