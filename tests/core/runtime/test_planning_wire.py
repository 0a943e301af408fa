"""The wire of a plan."""

import responses

from counterplay.runtime.planning_wire import PlanningWire


@responses.activate
def test_a_bulk_write_is_written_down_and_not_sent() -> None:
    """`bulk` sends by another way than `request`, and a plan stops both."""
    with PlanningWire() as wire:
        answer = wire.bulk("POST", "https://intake.example/batch", data=b"[1]")

    assert (answer.status, answer.body) == (200, b"")
    assert wire.calls == [{"method": "POST", "url": "https://intake.example/batch", "body": [1]}]
    assert len(responses.calls) == 0
