"""The intake receiver: what it takes, what it refuses, what it keeps."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest


def _post(client: Any, path: str, body: bytes, **headers: str) -> Any:
    return client.session.post(client.intake["url"] + path, data=body, headers=headers)


def test_a_batch_is_kept_and_receipted(simulator: Any, client: Any) -> None:
    """One id for each event, and the oracle finds them byte for byte."""
    events = list(simulator.tenant.events().values())[:5]

    answer = client.send(*events)

    assert answer.status_code == 200
    assert len(set(answer.json()["event_ids"])) == 5
    assert simulator.oracle().verdict().events.exact == 5


@pytest.mark.parametrize("how", ["header", "basic", "query"])
@pytest.mark.parametrize(
    ("path", "body", "count"),
    [("/plain/batch", b'{"a":1}\n{"b":2}\n', 2), ("/plain", b'{"a":1}', 1), ("/jsons", b'[{"a":1},"{}"]', 2)],
)
def test_the_key_may_stand_beside_the_body(
    simulator: Any, client: Any, path: str, body: bytes, count: int, how: str
) -> None:
    """Header, Basic password and query parameter open the end-points without a key in the body."""
    key = client.intake["intake_key"]
    url = client.intake["url"] + path
    if how == "header":
        answer = client.session.post(url, data=body, headers={"X-SEKOIAIO-INTAKE-KEY": key})
    elif how == "basic":
        answer = client.session.post(url, data=body, auth=("any", key))
    else:
        answer = client.session.post(url, data=body, params={"intake_key": key})

    assert answer.status_code == 200
    assert simulator.oracle().verdict().others == count


def test_a_single_event_and_a_compressed_batch_are_taken(simulator: Any, client: Any) -> None:
    """`/` takes one event as a string; gzip works."""
    key = client.intake["intake_key"]
    one = client.session.post(client.intake["url"] + "/", json={"intake_key": key, "json": "{}"})
    packed = gzip.compress(json.dumps({"intake_key": key, "jsons": ["{}", "[]"]}).encode())

    many = _post(client, "/batch", packed, **{"Content-Encoding": "gzip"})

    assert set(one.json()) == {"event_id"}
    assert len(many.json()["event_ids"]) == 2
    assert simulator.oracle().verdict().others == 3


def _large(size: int, key: str) -> bytes:
    shell = json.dumps({"intake_key": key, "jsons": [""]}).encode()
    return shell.replace(b'[""]', b'["' + b"x" * (size - len(shell)) + b'"]')


@pytest.mark.parametrize("packed", [False, True])
def test_the_payload_limit_is_exact(simulator: Any, client: Any, packed: bool) -> None:
    """10 MiB are taken and one byte more is refused, compressed or not; nothing of it is kept."""
    key, limit = client.intake["intake_key"], 10 * 1024 * 1024
    headers = {"Content-Encoding": "gzip"} if packed else {}

    def send(size: int) -> int:
        body = _large(size, key)
        return int(_post(client, "/batch", gzip.compress(body, 1) if packed else body, **headers).status_code)

    assert (send(limit), send(limit + 1)) == (200, 413)
    assert simulator.oracle().verdict().others == 1


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/batch", b'{"jsons":["{}"]}', {}, 401),
        ("/batch", b'{"intake_key":"wrong","jsons":["{}"]}', {}, 403),
        ("/plain", b"{}", {"Authorization": "Basic ???"}, 401),
        ("/plain/batch", b"{}", {"X-SEKOIAIO-INTAKE-KEY": "wrong"}, 403),
        ("/batch", b"{", {}, 400),
        ("/batch", b"[]", {}, 400),
        ("/batch", b'{"intake_key":"KEY","jsons":[{}]}', {}, 400),
        ("/batch", b'{"intake_key":"KEY"}', {}, 400),
        ("/jsons", b"{}", {"X-SEKOIAIO-INTAKE-KEY": "KEY"}, 400),
        ("/batch", b"not gzip", {"Content-Encoding": "gzip"}, 400),
        ("/batch", gzip.compress(b"{}" * 500, mtime=0)[:-9], {"Content-Encoding": "gzip"}, 400),
        ("/batch", b"{}", {"Content-Encoding": "br"}, 415),
        ("/nothing", b"{}", {}, 404),
    ],
)
def test_a_bad_request_is_refused_and_leaves_nothing(
    simulator: Any, client: Any, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Missing and wrong keys, bad JSON, bad gzip: a JSON error, and nothing is kept."""
    key = client.intake["intake_key"]
    headers = {name: value.replace("KEY", key) for name, value in headers.items()}

    answer = _post(client, path, body.replace(b"KEY", key.encode()), **headers)

    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert list(simulator._store.arrivals(simulator.tenant.id)) == []


def test_a_lone_surrogate_is_kept_as_it_came(simulator: Any, client: Any) -> None:
    """An event that no strict decoder takes is no reason to refuse a batch."""
    body = b'{"intake_key":"%s","jsons":["{}","\\ud800"]}' % client.intake["intake_key"].encode()

    assert len(_post(client, "/batch", body).json()["event_ids"]) == 2
    assert simulator.oracle().verdict().others == 2


def test_several_keys_in_one_call(simulator: Any, client: Any) -> None:
    """`/array`: each event with its own key; one wrong key and nothing is kept."""
    key = client.intake["intake_key"]
    good = [{"intake_key": key, "json": '{"a":1}', "timestamp": "x"}, {"intake_key": key, "json": "{}"}]
    url = client.intake["url"] + "/array"

    answer = client.session.post(url, json=good)
    refused = client.session.post(url, json=[*good, {"intake_key": "wrong", "json": "{}"}])

    assert len(answer.json()["event_ids"]) == 2
    assert refused.status_code == 403
    assert simulator.oracle().verdict().others == 2


def test_objects_are_kept_as_the_bytes_that_came(simulator: Any, client: Any) -> None:
    """`/jsons` and `/many` slice: a tenant's event among them is exact, whatever stands around it."""
    key = {"X-SEKOIAIO-INTAKE-KEY": client.intake["intake_key"]}
    one, two, three = list(simulator.tenant.events().values())[:3]
    post = client.session.post

    plain = post(client.intake["url"] + "/jsons", data=b"[ " + one + b" ,\n" + two + b"]", headers=key)
    deep = b'{"x":[0],"a":{"b":[' + three + b',"{}"]}}'
    many = post(client.intake["url"] + "/many?path=$.a.b", data=deep, headers=key)
    top = post(client.intake["url"] + "/many", data=b'[{"c":1.50}]', headers=key)

    assert [len(answer.json()["event_ids"]) for answer in (plain, many, top)] == [2, 2, 1]
    verdict = simulator.oracle().verdict()
    assert (verdict.events.exact, verdict.others) == (3, 2)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/many?path=$.a", b'{"b":[]}', 400),
        ("/many?path=$.a", b'{"a":{}}', 400),
        ("/many?path=$..a", b'{"a":[]}', 400),
        ("/many?path=$.a.b", b'{"a":3}', 400),
        ("/many", b"nonsense", 400),
        ("/array", b'{"intake_key":"KEY"}', 400),
        ("/array", b'[{"intake_key":"KEY","json":{}}]', 400),
        ("/array", b"[3]", 400),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(
    simulator: Any, client: Any, path: str, body: bytes, status: int
) -> None:
    """With a JSON error, and nothing is kept."""
    key = client.intake["intake_key"]

    answer = _post(client, path, body.replace(b"KEY", key.encode()), **{"X-SEKOIAIO-INTAKE-KEY": key})

    assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert list(simulator._store.arrivals(simulator.tenant.id)) == []


@pytest.mark.parametrize("path", ["/", "/batch"])
def test_a_key_that_is_half_a_surrogate_pair_is_malformed(client: Any, path: str) -> None:
    """401, not a failure of the service."""
    body = b'{"intake_key": "\\ud800", "json": "{}", "jsons": ["{}"]}'

    answer = _post(client, path, body)

    assert (answer.status_code, answer.json()) == (401, {"error": "the intake key is malformed"})


@pytest.mark.parametrize(
    ("path", "before", "after"), [("/jsons", b"", b""), ("/many?path=$.a", b'{"a":', b"}")]
)
@pytest.mark.parametrize("depth", [1000, 1020, 100_000])
def test_a_body_that_is_nested_too_deep_is_refused(
    simulator: Any, client: Any, path: str, before: bytes, after: bytes, depth: int
) -> None:
    """400 at any depth that no reader survives, and nothing is kept."""
    body = before + b"[" * depth + b"]" * depth + after

    answer = _post(client, path, body, **{"X-SEKOIAIO-INTAKE-KEY": client.intake["intake_key"]})

    assert answer.status_code == 400
    assert simulator.oracle().verdict().others == 0
