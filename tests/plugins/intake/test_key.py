"""The connection intake.key: where it goes, and its check."""

import json
from typing import Any

import jsonschema
import pytest
import responses

from counterplay import CheckResult, Context
from counterplay.plugins import PluginHost

URL = "https://intake.example.net/batch"


def test_the_check_sends_a_batch_that_stores_nothing(context: Context, wire: responses.RequestsMock) -> None:
    """An empty batch proves address and key."""
    wire.post(URL, json={"event_ids": []})
    assert context.connection is not None

    assert list(context.connection.check(context)) == [
        CheckResult("empty batch", True, "reachable, and the key is accepted; nothing was stored")
    ]
    assert json.loads(wire.calls[0].request.body or b"")["jsons"] == []


@pytest.mark.parametrize(
    ("answer", "ok", "detail"),
    [
        (
            {"status": 400},
            True,
            "reachable, but it refuses an empty batch (400), so the key is not proven",
        ),
        (
            {"status": 401},
            False,
            "the intake intake.example.net answered 401: the intake key is refused; check `intake_key`",
        ),
        (
            {"body": responses.ConnectionError("refused")},
            False,
            "no answer from https://intake.example.net: refused",
        ),
        (
            {"body": "<html>", "content_type": "text/html"},
            False,
            "the intake intake.example.net answered 200 with something that is not JSON (text/html)",
        ),
    ],
)
def test_the_check_says_what_it_met(
    context: Context, wire: responses.RequestsMock, answer: dict[str, Any], ok: bool, detail: str
) -> None:
    """Each outcome is one line, and nothing raises."""
    wire.post(URL, **answer)
    assert context.connection is not None

    assert list(context.connection.check(context)) == [CheckResult("empty batch", ok, detail)]


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("https://intake.example.net", True),
        ("http://localhost:8080/in/", True),
        ("ftp://intake.example.net", False),
        ("https://user:pass@intake.example.net", False),
        ("https://intake.example.net?intake_key=x", False),
        ("intake.example.net", False),
    ],
)
def test_an_address_holds_no_credentials(url: str, fits: bool) -> None:
    """A key in an address would end in the logs of proxies."""
    schema = PluginHost.load().module("intake.key").schema

    assert jsonschema.Draft202012Validator(schema).is_valid({"url": url, "intake_key": "${env:K}"}) is fits
