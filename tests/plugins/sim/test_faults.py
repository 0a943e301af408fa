"""Each kind of fault, as it shows on the wire."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from counterplay_sim.testing import Fault


def test_a_status_stands_in_for_the_nth_answer(start: Any) -> None:
    """The first and third call fail, the second and fourth do not."""
    rule = {
        "service": "activity",
        "path": "/list$",
        "nth": [1, 3],
        "status": 503,
        "body": "<html>busy</html>",
    }
    _, client = start(faults=[rule | {"headers": {"Retry-After": "1"}}])

    answers = [client.activity("GET", "subscriptions/list") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [503, 200, 503, 200]
    assert (answers[0].text, answers[0].headers["Retry-After"]) == ("<html>busy</html>", "1")


def test_a_reset_before_changes_nothing_and_one_after_does(start: Any) -> None:
    """In both cases the client sees the connection drop; only the second did the work."""
    simulator, client = start(
        faults=[
            Fault(service="intake", nth=(1,), reset="before"),
            Fault(service="intake", nth=(1,), reset="after"),
        ]
    )
    for kept in (0, 1):
        with pytest.raises(requests.ConnectionError):
            client.send("{}")
        assert simulator.oracle().verdict().others == kept
    assert client.send("{}").status_code == 200


def test_a_truncated_body_is_shorter_than_it_says(start: Any) -> None:
    """The length is announced, the bytes are not all there."""
    _, client = start(faults=[Fault(service="graph", truncate=10)])

    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        client.graph("GET", "/organization")


def test_a_slow_body_arrives_whole(start: Any) -> None:
    """Dripping changes the pace and nothing else."""
    _, client = start(faults=[Fault(service="graph", drip=0.001, delay=0.001)])

    assert len(client.graph("GET", "/users", **{"$top": "5"}).json()["value"]) == 5


def test_a_rule_is_used_up(start: Any) -> None:
    """`times` ends a rule, and the next one applies."""
    _, client = start(
        faults=[
            {"service": "graph", "times": 2, "status": 500},
            {"service": "graph", "times": 1, "status": 502},
        ]
    )

    assert [client.graph("GET", "/organization").status_code for _ in range(4)] == [500, 500, 502, 200]


def test_chance_is_repeatable(start: Any, tmp_path: Any) -> None:
    """The same seed gives the same faults."""

    def outcome(folder: str) -> list[int]:
        rule = {"service": "graph", "probability": 0.5, "status": 500}
        _, client = start(tmp_path / folder, faults=[rule], seed=5)
        return [client.graph("GET", "/organization").status_code for _ in range(12)]

    first = outcome("a")
    assert first == outcome("b")
    assert set(first) == {200, 500}


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"colour": "red"}, "a fault has no 'colour'; it may have blob, body, "),
        ({"reset": "sometimes"}, "reset is 'before' or 'after', not 'sometimes'"),
        ({"path": "("}, "path is no regular expression: "),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any], why: str) -> None:
    """A misspelt fault would be a test that tests nothing."""
    with pytest.raises(ValueError, match=re.escape(why)):
        Fault.parse(rule)
