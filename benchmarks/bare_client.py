"""The ceiling of `ingest.py`: a client that collects with urllib3 over TLS, without any promise.

`python benchmarks/bare_client.py INFO WORK`: what a simulator says of itself as JSON, and `slices`, `fields`
or `dicts`. Nothing is durable, remembered, retried or accounted for. Prints CPU and wall seconds of its work.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec
import orjson
import urllib3

BATCH = 524_288


def collect(info: dict[str, Any], work: str) -> None:
    """List, fetch, slice, do the work on the events, post."""
    tenant, intake = info["m365.tenant"], info["intake.key"]
    pool = urllib3.PoolManager(ca_certs=tenant["ca_file"], maxsize=2)
    feed = f"{tenant['activity_url']}/api/v1.0/{tenant['tenant_id']}/activity/feed"
    form = {
        "grant_type": "client_credentials",
        "client_id": tenant["client_id"],
        "client_secret": tenant["client_secret"],
        "scope": "https://manage.office.com/.default",
    }
    token = pool.request(
        "POST",
        f"{tenant['authority']}/{tenant['tenant_id']}/oauth2/v2.0/token",
        fields=form,
        encode_multipart=False,
    ).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    publisher = f"PublisherIdentifier={tenant['tenant_id']}"
    kinds = ("Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General", "DLP.All")
    for kind in kinds:
        pool.request(
            "POST", f"{feed}/subscriptions/start?contentType={kind}&{publisher}", headers=headers, body=b""
        )
    now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    blobs: list[str] = []
    for kind in kinds:
        address: str | None = (
            f"{feed}/subscriptions/content?contentType={kind}&{publisher}"
            f"&startTime={(now - timedelta(hours=24)).isoformat()}&endTime={now.isoformat()}"
        )
        while address:
            answer = pool.request("GET", address, headers=headers)
            blobs += [item["contentUri"] for item in answer.json()]
            following = answer.headers.get("NextPageUri")
            address = f"{following}&{publisher}" if following else None
    slices = msgspec.json.Decoder(list[msgspec.Raw]).decode
    named = msgspec.defstruct(
        "Named", [(n, Any, None) for n in ("Operation", "Workload", "UserId", "RecordType", "Id")]
    )
    structs = msgspec.json.Decoder(list[named]).decode  # type: ignore[valid-type]  # made at run time
    encode = msgspec.json.Encoder().encode
    began, before = time.monotonic(), time.process_time()
    parts: list[bytes] = []
    size = 0

    def post() -> None:
        body = b'{"intake_key":"%b","jsons":[%b]}' % (intake["intake_key"].encode(), b",".join(parts))
        answer = pool.request(
            "POST", f"{intake['url']}/batch", body=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status == 200, answer.data

    for uri in blobs:
        body = pool.request("GET", f"{uri}?{publisher}", headers=headers).data
        events = slices(body)
        if work == "fields":
            kept = [
                raw
                for raw, one in zip(events, structs(body), strict=True)
                if one.Operation != "a"
                and one.Workload != "b"
                and one.UserId != "c"
                and one.RecordType != 9999
                and one.Id != "d"
            ]
        elif work == "dicts":
            kept = [
                raw
                for raw, one in zip(events, orjson.loads(body), strict=True)
                if one is not None and len(one) > 2 and one.get("Operation") != "a"
            ]
        else:
            kept = events
        for raw in kept:
            part = encode(str(raw, "utf-8"))
            if size + len(part) > BATCH:
                post()
                parts, size = [], 0
            parts.append(part)
            size += len(part) + 1
    post()
    own = time.process_time() - before
    click.echo(json.dumps({"own": own, "own_seconds": time.monotonic() - began}))


if __name__ == "__main__":
    collect(json.loads(sys.argv[1]), sys.argv[2])
