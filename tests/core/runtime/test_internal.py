"""`internal` in expressions: from `counterplay.yaml`, else from the connection of the event."""

from typing import Any

import pytest

from counterplay import BlockedError, Page, RetryableError
from counterplay.runtime import internal

FOREIGN = "event.domain not in internal.domains"


@pytest.fixture
def door(bench: Any, lab: Any) -> Any:
    """A bench with a connection, and a page with one event from inside and one from outside."""
    bench.config = {"connections": {"door": {"uses": "lab.place"}}}
    lab.pages = [
        Page((b'{"id": "e1", "domain": "contoso.com"}', b'{"id": "e2", "domain": "x.example"}'), {"page": 1})
    ]
    return bench


def playbook(bench: Any, **rest: Any) -> Any:
    trigger = {"uses": "lab.door", "connection": "door"}
    return bench.playbook("watch", **{"trigger": trigger, "sinks": [{"uses": "lab.store", "with": {"to": "out"}}]} | rest)  # fmt: skip  # noqa: E501


def test_domains_are_those_that_the_connection_knows(door, lab) -> None:
    """Asked once for many events; the networks are none."""
    lab.domains = ["contoso.com"]

    ended = door.run(playbook(door, filter=FOREIGN))

    assert ended.exit_code == 0
    assert lab.taken["out"] == [b'{"id": "e2", "domain": "x.example"}']
    assert lab.asked_domains == 1


def test_the_configuration_wins(door, lab) -> None:
    """What `counterplay.yaml` says, in any case of letters, is not asked of anybody."""
    door.config["internal"] = {"domains": ["X.example"], "networks": ["203.0.113.0/24"]}
    condition = f'{FOREIGN} and "203.0.113.0/24" in internal.networks'

    assert door.run(playbook(door, filter=condition)).exit_code == 0
    assert lab.taken["out"] == [b'{"id": "e1", "domain": "contoso.com"}']
    assert lab.asked_domains == 0


def test_steps_of_a_run_see_it(door, lab) -> None:
    """In conditions, and whole in arguments."""
    lab.domains = ["contoso.com"]
    step = {"id": "say", "uses": "lab.act", "when": FOREIGN, "with": {"what": "{{ internal | tojson }}"}}

    assert door.run(playbook(door, steps=[step], sinks=[])).exit_code == 0
    assert lab.acted == ['{"domains": ["contoso.com"], "networks": []}']


def test_a_filter_judges_nothing_while_nobody_can_tell(door, lab) -> None:
    """The events are held back, not dropped, and judged when the service answers."""
    lab.domains = BlockedError("the permission is missing")
    first = door.run(playbook(door, filter=FOREIGN))

    assert first.exit_code == 3
    assert "the permission is missing" in first.notices["watch"]
    assert lab.taken["out"] == []

    lab.domains = ["contoso.com"]
    assert door.run(playbook(door, filter=FOREIGN)).exit_code == 0
    assert lab.taken["out"] == [b'{"id": "e2", "domain": "x.example"}']


@pytest.mark.parametrize("error", [BlockedError("refused"), RetryableError("no answer")])
def test_a_run_waits_until_somebody_can_tell(door, lab, error: Exception) -> None:
    """No step begins; the next session goes on with it."""
    lab.domains = error
    steps = [{"id": "say", "uses": "lab.act", "when": FOREIGN, "with": {"what": "{{ event.id }}"}}]
    ended = door.run(playbook(door, steps=steps, sinks=[]))

    assert ended.exit_code == 3
    assert lab.acted == []
    assert [one.status for one in door.runs()] == ["blocked", "blocked"]

    lab.domains = ["contoso.com"]
    assert door.run(playbook(door, steps=steps, sinks=[])).exit_code == 0
    assert lab.acted == ["e2"]


def test_without_a_tenant_the_configuration_has_to_say_it(door, put, lab) -> None:
    """An event of no known tenant cannot be judged; never is the list of domains empty."""
    put("u1", b'[{"id": "e1", "domain": "contoso.com"}]')
    steps = [{"id": "say", "uses": "lab.act", "with": {"what": "{{ internal.domains | first }}"}}]
    ended = door.run(playbook(door, trigger={"uses": "lab.source"}, steps=steps, sinks=[]))

    (run,) = door.runs()
    assert (ended.exit_code, run.status) == (1, "failed")
    assert run.error.startswith("`internal.domains` is not known: the event came through no tenant")
    assert "internal: {domains: [...]}" in run.error


def test_domains_are_asked_for_again_and_an_answer_is_kept_while_there_is_no_other(door, lab, monkeypatch) -> None:  # fmt: skip  # noqa: E501
    """A day later a failure changes nothing; a new answer does."""
    from counterplay.runtime.opening import Opener
    from counterplay.workspace import Workspace

    door.run(playbook(door))
    monkeypatch.setattr(internal, "FRESH", 0.0)
    monkeypatch.setattr(internal, "_AGAIN", 0.0)
    asks = Opener(Workspace(door.host, door.root)).internal
    answers = []
    for given in (["contoso.com"], RetryableError("no answer"), ["fabrikam.com"]):
        lab.domains = given
        answers.append(asks.for_event({"connection": "door"})["domains"])

    assert answers == [["contoso.com"], ["contoso.com"], ["fabrikam.com"]]
