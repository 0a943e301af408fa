"""The intake: an HTTP receiver for events that an intake key opens.

It answers only after the events are durable, so that what it acknowledged survives its own death.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import orjson

from counterplay_sim.http_server import Answer, Request
from counterplay_sim.meter import Meter
from counterplay_sim.tenant import Tenant

MAX_PAYLOAD = 10 * 1024 * 1024
_KEY_HEADER = "x-sekoiaio-intake-key"
_PATH = re.compile(r"\$(?:\.[A-Za-z_][\w-]*)*")


class _IntakeError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class IntakeService:
    """Takes single events and batches: as JSON strings, as objects, as lines, or anywhere in a document."""

    name = "intake"

    def __init__(self, tenants: Callable[[], Iterable[Tenant]], meter: Meter) -> None:
        self._tenants = tenants
        self._meter = meter
        self._routes: dict[str, Callable[[Request, bytes], list[tuple[Tenant, bytes]]]] = {
            "/": self._one,
            "/batch": self._batch,
            "/array": self._array,
            "/plain": self._plain,
            "/plain/batch": self._lines,
            "/jsons": self._objects,
            "/many": self._many,
        }

    def handle(self, request: Request) -> Answer:
        read = self._routes.get(request.path)
        if read is None:
            return self.failure(404, "not found")
        if request.method != "POST":
            return self.failure(405, "method not allowed")
        try:
            events = read(request, _payload(request))
        except _IntakeError as error:
            return self.failure(error.status, str(error))
        receipts = self._accept(request.path, events)
        if request.path in ("/", "/plain"):
            return Answer(200, orjson.dumps({"event_id": receipts[0]}))
        return Answer(200, orjson.dumps({"event_ids": receipts}))

    def _accept(self, path: str, events: list[tuple[Tenant, bytes]]) -> list[str]:
        """Keep every event with its tenant; the receipts stand in the order of the events."""
        receipts = [""] * len(events)
        for tenant in {id(tenant): tenant for tenant, _ in events}.values():
            self._meter.count(tenant.id, self.name, path)
            places = [place for place, (whose, _) in enumerate(events) if whose is tenant]
            for place, receipt in zip(
                places, tenant.accept([events[place][1] for place in places]), strict=True
            ):
                receipts[place] = receipt
        return receipts

    def failure(self, status: int, text: str) -> Answer:
        return Answer(status, orjson.dumps({"error": text}))

    def _one(self, request: Request, payload: bytes) -> list[tuple[Tenant, bytes]]:
        document = _object(payload)
        tenant = self._tenant(document.get("intake_key") or _key(request))
        return [(tenant, event) for event in _strings([document.get("json")])]

    def _batch(self, request: Request, payload: bytes) -> list[tuple[Tenant, bytes]]:
        document = _object(payload)
        tenant = self._tenant(document.get("intake_key") or _key(request))
        return [(tenant, event) for event in _strings(document.get("jsons"))]

    def _array(self, request: Request, payload: bytes) -> list[tuple[Tenant, bytes]]:
        """Several keys in one call: all of it is taken, or nothing."""
        documents = _json(payload)
        if not isinstance(documents, list) or not all(isinstance(one, dict) for one in documents):
            raise _IntakeError(400, "the body is not a list of JSON objects")
        tenants = [self._tenant(one.get("intake_key") or _key(request)) for one in documents]
        return list(zip(tenants, _strings([one.get("json") for one in documents]), strict=True))

    def _plain(self, request: Request, payload: bytes) -> list[tuple[Tenant, bytes]]:
        tenant = self._tenant(_key(request))
        if not payload:
            raise _IntakeError(400, "the body is empty")
        return [(tenant, payload)]

    def _lines(self, request: Request, payload: bytes) -> list[tuple[Tenant, bytes]]:
        tenant = self._tenant(_key(request))
        lines = (line.removesuffix(b"\r") for line in payload.split(b"\n"))
        return [(tenant, line) for line in lines if line.strip()]

    def _objects(self, request: Request, payload: bytes) -> list[tuple[Tenant, bytes]]:
        return self._slices(self._tenant(_key(request)), payload)

    def _many(self, request: Request, payload: bytes) -> list[tuple[Tenant, bytes]]:
        """Any JSON; `path` points at the list of events with a JSONPath of names: `$.a.b`."""
        tenant = self._tenant(_key(request))
        path = request.query().get("path", "$")
        if _PATH.fullmatch(path) is None:
            raise _IntakeError(400, "path is a JSONPath of member names, such as $.records")
        _json(payload)
        for name in path.split(".")[1:]:
            try:
                payload = bytes(msgspec.json.decode(payload, type=dict[str, msgspec.Raw])[name])
            except (msgspec.MsgspecError, KeyError):
                raise _IntakeError(400, f"the body has nothing at {path}") from None
            except RecursionError:
                raise _too_deep() from None
        return self._slices(tenant, payload)

    @staticmethod
    def _slices(tenant: Tenant, payload: bytes) -> list[tuple[Tenant, bytes]]:
        """The elements of a JSON list as the bytes that came; a string is the event that it holds."""
        documents = _json(payload)
        if not isinstance(documents, list):
            raise _IntakeError(400, "that is not a list of events")
        try:
            raw = [bytes(one) for one in msgspec.json.decode(payload, type=list[msgspec.Raw])]
        except msgspec.MsgspecError:  # stricter than the JSON that was read above
            raw = [json.dumps(one, separators=(",", ":")).encode() for one in documents]
        except RecursionError:
            raise _too_deep() from None
        return [
            (tenant, one.encode("utf-8", "surrogatepass") if isinstance(one, str) else bytes_of)
            for one, bytes_of in zip(documents, raw, strict=True)
        ]

    def _tenant(self, key: object) -> Tenant:
        if not isinstance(key, str) or not key:
            raise _IntakeError(401, "an intake key is missing")
        try:
            given = key.encode()
        except UnicodeEncodeError:
            raise _IntakeError(401, "the intake key is malformed") from None
        for tenant in self._tenants():
            if hmac.compare_digest(given, tenant.intake_key.encode()):
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


def _too_deep() -> _IntakeError:
    return _IntakeError(400, "the body is nested too deep")


def _object(payload: bytes) -> dict[str, Any]:
    document = _json(payload)
    if not isinstance(document, dict):
        raise _IntakeError(400, "the body is not a JSON object")
    return document


def _strings(values: object) -> list[bytes]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _IntakeError(400, "an event is a string of JSON")
    return [value.encode("utf-8", "surrogatepass") for value in values]
