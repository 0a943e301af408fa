"""`$batch`: up to twenty requests in one, each authorised, throttled and answered on its own."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson

from counterplay_sim.graph.call import Call
from counterplay_sim.graph.errors import bad_request
from counterplay_sim.http_server import Answer, Request

Doc = dict[str, Any]

MOST = 20
_METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")
_INHERITED = ("authorization", "host", "prefer", "consistencylevel")


def answer(call: Call, handle: Callable[[Request], Answer]) -> Answer:
    """The answers of all requests, in no particular order (here: the last one first)."""
    requests = _requests(call.body())
    done: dict[str, Doc] = {}
    for key in _in_order(requests):
        done[key] = _one(call, requests[key], done, handle)
    return call.json({"responses": [done[key] for key in reversed(list(requests))]})


def _requests(body: Doc) -> dict[str, Doc]:
    listed = body.get("requests")
    if not isinstance(listed, list) or not listed:
        raise bad_request("Invalid batch payload format.")
    if len(listed) > MOST:
        raise bad_request(f"Number of batch request steps exceeds the maximum value of {MOST}.")
    found: dict[str, Doc] = {}
    for one in listed:
        if not isinstance(one, dict) or not isinstance(one.get("id"), str) or not one["id"]:
            raise bad_request("Invalid batch payload format. Each request needs an id.")
        if one["id"] in found:
            raise bad_request(f"Batch request id : {one['id']} is a duplicate.")
        if one.get("method") not in _METHODS or not isinstance(one.get("url"), str):
            raise bad_request(f"Invalid batch payload format. Request id : {one['id']} has no method or url.")
        if not isinstance(one.get("headers") or {}, dict):
            raise bad_request(f"Invalid batch payload format. The headers of request id : {one['id']}.")
        if one["url"].startswith(("http:", "https:")):
            raise bad_request(f"Invalid URL of request id : {one['id']}. It must be relative.")
        found[one["id"]] = one
    return found


def _in_order(requests: dict[str, Doc]) -> list[str]:
    """Every request after those that it depends on."""
    ordered: list[str] = []
    waiting = dict(requests)
    while waiting:
        ready = [key for key, one in waiting.items() if all(need in ordered for need in _needs(one))]
        if not ready:
            unknown = [need for one in waiting.values() for need in _needs(one) if need not in requests]
            why = f"id : {unknown[0]} is not in the batch" if unknown else "the dependencies form a cycle"
            raise bad_request(f"Invalid dependsOn in the batch: {why}.")
        ordered += ready
        for key in ready:
            del waiting[key]
    return ordered


def _needs(one: Doc) -> list[str]:
    needs = one.get("dependsOn") or []
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise bad_request("Invalid dependsOn in the batch: it is not a list of ids.")
    return needs


def _one(call: Call, one: Doc, done: dict[str, Doc], handle: Callable[[Request], Answer]) -> Doc:
    if any(done[need]["status"] >= 400 for need in _needs(one)):
        return _refused(one, 424, "FailedDependency", "A request that this one depends on has failed.")
    given = one.get("headers") or {}
    headers = {str(name).lower(): str(value) for name, value in given.items()}
    body = one.get("body")
    if body is not None and "content-type" not in headers:
        text = f"Write request id : {one['id']} does not contain Content-Type header or body."
        return _refused(one, 400, "BadRequest", text)
    outer = {name: value for name, value in call.request.headers.items() if name in _INHERITED}
    url = "/" + one["url"].lstrip("/")
    if url.partition("?")[0] == "/$batch":
        return _refused(one, 400, "BadRequest", "A batch cannot hold another batch.")
    inner = Request(
        one["method"],
        f"/{call.version}{url}",
        {**outer, **headers},
        b"" if body is None else orjson.dumps(body),
    )
    return {"id": one["id"], **_shown(handle(inner))}


def _shown(made: Answer) -> Doc:
    shown: Doc = {"status": made.status, "headers": dict(made.headers)}
    if made.body:
        shown["headers"]["Content-Type"] = made.content_type
        if "json" in made.content_type:
            shown["body"] = orjson.loads(made.body)
        else:
            shown["body"] = base64.b64encode(made.body).decode()
    return shown


def _refused(one: Doc, status: int, code: str, text: str) -> Doc:
    return {
        "id": one["id"],
        "status": status,
        "headers": {},
        "body": {"error": {"code": code, "message": text}},
    }
