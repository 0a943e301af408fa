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
        (
            {"service": "grpah"},
            "service is one of login, graph, activity, intake, not 'grpah'; did you mean 'graph'?",
        ),
        ({"kind": "truncated_jsn"}, "not 'truncated_jsn'; did you mean 'truncated_json'?"),
        ({"content_type": "Audit.Exchnage"}, "not 'Audit.Exchnage'; did you mean 'Audit.Exchange'?"),
        ({"method": "get"}, "not 'get'; did you mean 'GET'?"),
        ({"nth": "1"}, "nth is a whole number at least 1, not '1'"),
        ({"nth": [1, "2"]}, "nth is a whole number at least 1, not '2'"),
        ({"nth": 0}, "nth is a whole number at least 1, not 0"),
        ({"probability": 1.5}, "probability is a number from 0 to 1, not 1.5"),
        ({"probability": "1"}, "probability is a number, not '1'"),
        ({"probability": float("nan")}, "probability is a number, not nan"),
        ({"status": "503"}, "status is a whole number from 100 to 599, not '503'"),
        ({"status": 5030}, "status is a whole number from 100 to 599, not 5030"),
        ({"status": 99}, "status is a whole number from 100 to 599, not 99"),
        ({"body": {"error": 1}}, "body is a text, not {'error': 1}"),
        ({"body": "\ud800"}, "body holds half of a surrogate pair"),
        ({"truncate": -1}, "truncate is a whole number at least 0, not -1"),
        ({"truncate": "10"}, "truncate is a whole number at least 0, not '10'"),
        ({"delay": -1}, "delay is a number at least 0, not -1"),
        ({"drip": -0.1}, "drip is a number at least 0, not -0.1"),
        ({"times": -1}, "times is a whole number at least 0, not -1"),
        ({"per_target": 1.5}, "per_target is a whole number at least 0, not 1.5"),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "headers: X-A is a text on one line"),
        ({"headers": {"X-A:": "1"}}, "headers: 'X-A:' is no name of a header"),
        ({"headers": {"Retry-After": 1}}, "headers: Retry-After is a text on one line, not 1"),
        ({"headers": ["X-A"]}, "headers is an object of texts"),
        ({"element": "odd"}, "element is one of syntax"),
        ({"service": "graph", "nth": 2}, "the rule does nothing: give a kind, or status, delay"),
        ({"digits": [10]}, "digits is a whole number from 0 to 9, not 10"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any], why: str) -> None:
    """A misspelt fault would be a test that tests nothing."""
    with pytest.raises(ValueError, match=re.escape(why)):
        Fault.parse(rule)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"service": "grpah", "status": 503}, "did you mean 'graph'?"),
        ({"service": "graph", "status": "503"}, "status is a whole number from 100 to 599, not '503'"),
        ({"service": "graph", "headers": {"X-A": "1\r\nX-B: 2"}, "status": 503}, "a text on one line"),
        (3, "a fault is an object, not 3"),
    ],
)
def test_the_admin_port_refuses_such_a_rule(simulator: Any, client: Any, rule: Any, why: str) -> None:
    """400 with the reason, no rule of the list is in force, and Graph answers as before."""
    info = simulator.info()
    answer = client.session.post(
        f"{info['urls']['admin']}/faults",
        json=[rule],
        headers={"Authorization": f"Bearer {info['admin_token']}"},
    )

    assert (answer.status_code, why in answer.json()["error"]) == (400, True)
    assert simulator.faults.report() == []
    assert client.graph("GET", "/organization").status_code == 200


def test_a_fault_built_by_hand_is_checked_too() -> None:
    """A constructor is no way around the checks."""
    with pytest.raises(ValueError, match="did you mean 'graph'"):
        Fault(service="grpah")


def test_content_types_and_limits_that_are_right_are_taken(start: Any) -> None:
    """A content type in any case, a status at either end of its range: the rule is met."""
    _, client = start(
        faults=[{"service": "activity", "method": "POST", "content_type": "audit.exchange", "status": 599}]
    )

    assert client.activity("POST", "subscriptions/start", contentType="Audit.Exchange").status_code == 599
    assert client.activity("POST", "subscriptions/start", contentType="DLP.All").status_code == 200
