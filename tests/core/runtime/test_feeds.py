"""Whole sessions of playbooks that forward: what a source lists arrives, once, or is told."""

import json
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from counterplay import BlockedError, ConfigError, GoneError, PermanentError, RetryableError
from counterplay.clock import now
from counterplay.errors import StateError
from counterplay.events import Gap, Page
from counterplay.runtime import blame, fetching, pipeline, reception, subscribers
from counterplay.store.feeds import FeedStore
from counterplay.store.key_claims import UNTIMED, UnitKeys
from counterplay.store.ledger import Ledger

SOON = {"retry_after": 0.01}


def body(*names: str, **rest: Any) -> bytes:
    return json.dumps([{"id": name, **rest} for name in names]).encode()


def forward(bench: Any, name: str = "collect", to: str | None = None, **rest: Any) -> Any:
    """A playbook that forwards the lab's source to a store."""
    return bench.playbook(
        name,
        **{"trigger": {"uses": "lab.source"}, "sinks": [{"uses": "lab.store", "with": {"to": to or name}}]}
        | rest,
    )


def ids(raws: list[bytes]) -> list[str]:
    return [json.loads(raw)["id"] for raw in raws]


def test_everything_that_is_listed_arrives_once(bench, lab, put) -> None:
    """Two sessions: each unit is fetched once, each event delivered once, byte for byte."""
    put("u1", b'[ {"id": "a",  "x": 1.50}, {"id":"b"}]')
    put("u2", body("c"))
    ended = bench.run(forward(bench))
    assert (ended.exit_code, ended.notices) == (0, {})
    assert sorted(lab.taken["collect"]) == [b'{"id": "a",  "x": 1.50}', b'{"id": "c"}', b'{"id":"b"}']
    assert ended.figures["collected"] == ended.figures["delivered"] == 3
    put("u3", body("d"), minutes_ago=5)
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(lab.fetched) == ["u1", "u2", "u3"]
    assert sorted(ids(lab.taken["collect"])) == ["a", "b", "c", "d"]


def test_the_mark_follows_what_is_accounted_for(bench, lab, put) -> None:
    """While a unit waits the mark stays before its window; afterwards it moves up to the last whole one."""
    at = put("u1", body("a"), minutes_ago=150)
    lab.refusals["collect"].append(BlockedError("401"))
    assert bench.run(forward(bench)).exit_code == 3
    ((mark,),) = bench.rows("SELECT mark FROM cp_subscription")
    assert mark <= at.isoformat()
    hours = {(now() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:00:00.000000Z")}
    assert bench.run(forward(bench)).exit_code == 0
    hours.add((now() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:00:00.000000Z"))
    ((mark,),) = bench.rows("SELECT mark FROM cp_subscription")
    assert mark in hours  # the last one that has settled


def test_a_passing_failure_of_a_sink_is_waited_out(bench, lab, put) -> None:
    """503 twice, then it works: nothing is lost or doubled, and nothing is left to tell."""
    put("u1", body("a", "b"))
    lab.refusals["collect"].extend([RetryableError("503", **SOON), RetryableError("503", **SOON)])
    ended = bench.run(forward(bench))
    assert (ended.exit_code, ended.notices) == (0, {})
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]


def test_a_refused_key_blocks_and_the_next_session_delivers(bench, lab, put) -> None:
    """Nothing is acknowledged while the sink says 401; the notice says why."""
    put("u1", body("a"))
    lab.refusals["collect"].append(BlockedError("the intake answered 401"))
    ended = bench.run(forward(bench))
    assert ended.exit_code == 3
    assert ended.notices["collect"] == "blocked: the intake answered 401; its events are held back"
    assert bench.rows("SELECT * FROM cp_acknowledgement") == []
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a"]
    assert lab.fetched == ["u1", "u1"]


def test_a_record_that_is_refused_is_found_and_kept(bench, lab, put) -> None:
    """413 for a batch is halved down to the record; the others arrive, the exit code says 1."""
    put("u1", body("a", "b", "poison", "c", "d"))
    lab.refuses = lambda raw: b"poison" in raw
    ended = bench.run(forward(bench))
    assert ended.exit_code == 1
    assert sorted(ids(lab.taken["collect"])) == ["a", "b", "c", "d"]
    ((reason, raw, playbook),) = bench.rows("SELECT reason, body, playbook FROM cp_dead_letter")
    assert (reason, json.loads(raw)["id"], playbook) == ("413: too much", "poison", "collect")
    assert bench.rows("SELECT delivered, dead FROM cp_acknowledgement") == [(4, 1)]
    assert bench.run(forward(bench)).exit_code == 0
    assert len(lab.taken["collect"]) == 4


def test_a_record_that_is_too_large_never_leaves_and_is_kept_whole(bench, lab, put) -> None:
    """The dead letter has all of its bytes."""
    put("u1", body("a", text="x" * 100_000) + b" ")
    assert bench.run(forward(bench)).exit_code == 1
    ((raw,),) = bench.rows("SELECT body FROM cp_dead_letter")
    assert len(json.loads(raw)["text"]) == 100_000


def test_a_blocked_playbook_holds_nobody_else_back(bench, lab, put) -> None:
    """Both share one fetch while both work; the blocked one catches up later, alone."""
    one, two = forward(bench, "one"), forward(bench, "two")
    put("u1", body("a"))
    assert bench.run(one, two).exit_code == 0
    assert lab.fetched == ["u1"]
    put("u2", body("b"), minutes_ago=6)
    put("u3", body("c"), minutes_ago=5)
    lab.refusals["two"].append(BlockedError("401"))
    assert bench.run(one, two).exit_code == 3
    assert sorted(ids(lab.taken["one"])) == ["a", "b", "c"]
    assert sorted(ids(lab.taken["two"])) == ["a"]
    caught_up = bench.run(one, two)
    assert caught_up.exit_code == 0
    names = ("collected", "units", "collected_again", "units_again", "delivered")
    assert [caught_up.figures.get(name, 0) for name in names] == [0, 0, 2, 2, 2]
    assert sorted(ids(lab.taken["one"])) == ["a", "b", "c"]
    assert sorted(ids(lab.taken["two"])) == ["a", "b", "c"]


def test_a_sink_that_does_not_answer_holds_no_other_playbook_back(bench, lab, put, monkeypatch) -> None:
    """While one hangs in the middle of a batch, the other gets all; once it answers, the first goes on."""
    import lab_plugin

    for name in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):  # it need not wait for the end of its pause
        monkeypatch.setattr(subscribers, name, 3600.0)
    stop = threading.Event()
    hangs = threading.Timer(20, stop.set)
    hangs.start()

    monkeypatch.setattr(lab_plugin.Store, "max_batch_records", 1)
    monkeypatch.setattr(pipeline, "PATIENCE", 0.05)
    names = [f"e{number}" for number in range(30)]
    for number, name in enumerate(names):
        put(f"u{number}", json.dumps([{"id": f"{name}-{to}", "to": to} for to in ("one", "two")]).encode())
    waits = threading.Event()
    gave_up: list[bytes] = []

    def refuses(raw: bytes) -> bool:
        if json.loads(raw)["to"] == "one" and not waits.is_set():
            until = time.monotonic() + 10
            while len(lab.taken["two"]) < len(names):
                if time.monotonic() > until:
                    gave_up.append(raw)
                    break
                waits.wait(0.01)
            waits.set()
        return False

    lab.refuses = refuses
    both = [forward(bench, name, filter=f"event.to == '{name}'") for name in ("one", "two")]
    ended = bench.run(*both, stop=stop)
    hangs.cancel()
    assert (gave_up, ended.exit_code, ended.notices) == ([], 0, {})
    for to in ("one", "two"):
        assert sorted(ids(lab.taken[to])) == sorted(f"{name}-{to}" for name in names)


def test_a_sink_behind_a_blocked_one_does_not_get_records_twice(bench, lab, put) -> None:
    """Two sinks of one playbook: what the first took is remembered while the second refuses."""
    sinks = [{"uses": "lab.store", "with": {"to": name}} for name in ("first", "second")]
    put("u1", body("a", "b"))
    lab.refusals["second"].append(BlockedError("403"))
    playbook = forward(bench, sinks=sinks)
    assert bench.run(playbook).exit_code == 3
    assert bench.run(playbook).exit_code == 0
    assert sorted(ids(lab.taken["first"])) == sorted(ids(lab.taken["second"])) == ["a", "b"]


def test_what_was_delivered_before_an_outage_is_not_sent_again(bench, lab, put) -> None:
    """The batches of a unit are remembered one by one."""
    put("u1", body(*(f"e{number}" for number in range(1500))))
    calls: list[int] = []

    def refuses(raw: bytes) -> bool:
        if json.loads(raw)["id"] == "e1000" and not calls:
            calls.append(1)
            raise BlockedError("401 in the middle")
        return False

    lab.refuses = refuses
    assert bench.run(forward(bench)).exit_code == 3
    assert len(lab.taken["collect"]) == 1000
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == sorted(f"e{number}" for number in range(1500))


def test_events_that_are_encoded_early_arrive_as_all_others(bench, lab, put) -> None:
    """Each sink gets what it encodes itself, nothing twice, and what is no text is fetched again."""
    put("u1", body("a", "b"))
    put("u2", body("b", "c"))
    put("u3", b'[{"id": "\xff"}]', body("d"))
    wanted = {"filter": "event.id != 'b'"}
    books = [
        bench.playbook(
            name, trigger={"uses": "lab.named"}, sinks=[{"uses": "lab.lines", "with": {"to": name}}], **rest
        )
        for name, rest in (("one", {}), ("two", {}), ("three", wanted))
    ]
    assert bench.run(*books[:2]).exit_code == 0
    for name in ("one", "two"):
        assert sorted(lab.taken[name]) == [f'{name}: {{"id": "{one}"}}'.encode() for one in "abcd"]
    assert lab.encoding == {"one": {"fetch"}, "two": {"mill"}}
    put("u4", body("b", "e"))
    assert bench.run(books[2]).exit_code == 0
    assert sorted(lab.taken["three"]) == [f'three: {{"id": "{one}"}}'.encode() for one in "acde"]
    assert lab.encoding["three"] == {"mill"}
    assert lab.fetched.count("u3") == 3  # spoilt, whole, and for the third playbook


def test_an_event_that_came_in_two_units_is_delivered_once(bench, lab, put) -> None:
    """The second occurrence is dropped and counted, in the same unit as well."""
    put("u1", body("a", "b", "a"))
    put("u2", body("b", "c"))
    ended = bench.run(forward(bench))
    assert sorted(ids(lab.taken["collect"])) == ["a", "b", "c"]
    assert (ended.figures["duplicates"], ended.exit_code) == (2, 0)


def test_a_duplicate_replaces_the_original_that_was_lost(bench, lab, put) -> None:
    """The owner was fetched, could not be delivered, and is gone afterwards: the other copy goes out."""
    put("u1", body("a", "b"), GoneError("404: expired"))
    put("u2", body("b", "c"))
    lab.refusals["collect"].append(BlockedError("401"))
    assert bench.run(forward(bench)).exit_code == 3
    ended = bench.run(forward(bench))
    assert ended.exit_code == 1
    assert ended.figures["lost"] == 1
    assert sorted(ids(lab.taken["collect"])) == ["b", "c"]
    assert bench.rows("SELECT unit_key, status, reason FROM cp_unit WHERE status = 'lost'") == [
        ("u1", "lost", "404: expired")
    ]


def test_two_units_that_own_each_others_events_both_end(bench, lab, put) -> None:
    """After a third unit was lost, each holds a duplicate of the other: neither waits for ever."""
    put("u1", body("a"), GoneError("404"))
    put("u2", body("a", "b"))
    put("u3", body("a", "b"))
    lab.refusals["collect"].append(BlockedError("401"))
    assert bench.run(forward(bench)).exit_code == 3
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("DELETE FROM cp_unit_keys")
        connection.exec_driver_sql("DELETE FROM cp_key_hour")
        connection.exec_driver_sql("UPDATE cp_unit SET status = 'listed', digest = NULL, duplicates = NULL")
        for name, unit in (("b", "u2"), ("a", "u3")):
            (found,) = connection.exec_driver_sql("SELECT id FROM cp_unit WHERE unit_key = ?", (unit,)).one()
            FeedStore(database).keys.claim(connection, 1, [UnitKeys(found, [name], [0], [UNTIMED], [0])])
        connection.exec_driver_sql("UPDATE cp_unit SET digest = 'old' WHERE unit_key != 'u1'")
    began = time.monotonic()
    bench.run(forward(bench))
    assert time.monotonic() - began < 5
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]


def test_waiting_for_an_original_is_no_failed_attempt(bench, lab, put, monkeypatch) -> None:
    """A spare that looked a hundred times may still fail to be fetched without being quarantined."""
    monkeypatch.setattr(reception, "UNIT_ATTEMPTS", 2)
    put("u1", RetryableError("500", status=500, **SOON), body("a"))
    put("u2", body("a", "b"))
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]


def test_a_later_playbook_gets_events_whose_owner_is_older_than_it(bench, lab, put) -> None:
    """For it, the copy in the newer unit is no duplicate."""
    put("old", body("a"), minutes_ago=170)
    one, two = forward(bench, "one"), forward(bench, "two")
    assert bench.run(one).exit_code == 0
    put("new", body("a", "b", "b"), minutes_ago=5)
    from lab_plugin import Source

    before, Source.look_back = Source.look_back, timedelta(minutes=60)
    try:
        assert bench.run(one, two).exit_code == 0
    finally:
        Source.look_back = before
    assert sorted(ids(lab.taken["one"])) == ["a", "b"]
    assert sorted(ids(lab.taken["two"])) == ["a", "b"]


def test_a_unit_that_is_gone_is_recorded_and_the_others_arrive(bench, lab, put) -> None:
    """The exit code says that something is missing; asking again does not."""
    put("u1", GoneError("404: no such blob"))
    put("u2", body("b"))
    ended = bench.run(forward(bench))
    assert ended.exit_code == 1
    assert any("lost: 404: no such blob" in text for text in ended.notices.values())
    assert sorted(ids(lab.taken["collect"])) == ["b"]
    assert bench.run(forward(bench)).exit_code == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>Bad Gateway</html>", "the unit is not a JSON array"),
        (PermanentError("410: what"), "410: what"),
        (KeyError("oops"), "the trigger lab.source failed: KeyError: 'oops'"),
    ],
)
def test_a_unit_that_cannot_be_read_is_set_aside(bench, lab, put, answer, reason: str) -> None:
    """It is quarantined with the reason; everything else goes on."""
    put("u1", answer)
    put("u2", body("b"))
    assert bench.run(forward(bench)).exit_code == 1
    assert sorted(ids(lab.taken["collect"])) == ["b"]
    ((status, found),) = bench.rows("SELECT status, reason FROM cp_unit WHERE unit_key = 'u1'")
    assert status == "quarantined"
    assert reason in found


def test_a_unit_that_came_in_the_end_is_told_no_longer(bench, lab, put) -> None:
    """It was lost, somebody had it tried again beside the session at work, and it arrived."""
    put("u1", GoneError("404: expired"), body("late"))
    put("u2", body("other"))

    def refuses(raw: bytes) -> bool:
        if b"other" in raw:
            until = time.monotonic() + 10
            while not bench.rows("SELECT 1 FROM cp_unit WHERE status = 'lost'") and time.monotonic() < until:
                threading.Event().wait(0.01)
            with bench.store() as database:
                book = Ledger(database)
                assert book.retry(book.feeds(), ()) == 1
        return False

    lab.refuses = refuses
    ended = bench.run(forward(bench))
    assert sorted(ids(lab.taken["collect"])) == ["late", "other"]
    assert (ended.exit_code, ended.notices) == (1, {})


def test_a_run_fails_as_long_as_a_unit_of_its_feed_is_quarantined(bench, lab, put) -> None:
    """So does a later one with nothing new, until somebody has it tried again; a feed beside it is well."""
    put("u1", b"<html>Bad Gateway</html>", b"<html>Bad Gateway</html>", body("a"))
    beside = bench.playbook(
        "beside", trigger={"uses": "lab.log"}, sinks=[{"uses": "lab.store", "with": {"to": "beside"}}]
    )
    assert bench.run(forward(bench)).exit_code == 1

    again = bench.run(forward(bench))

    assert (again.exit_code, again.figures.get("quarantined", 0)) == (1, 0)
    (notice,) = again.notices.values()
    assert "1 unit is quarantined: see `playbook ledger gaps`; `playbook ledger retry` tries again" in notice
    assert bench.run(beside).exit_code == 0
    with bench.store() as database:
        book = Ledger(database)
        assert book.retry(book.feeds(), ()) == 1
    assert bench.run(forward(bench)).exit_code == 0
    assert ids(lab.taken["collect"]) == ["a"]
    assert bench.run(forward(bench)).exit_code == 0


def test_a_unit_that_broke_on_its_way_is_fetched_again(bench, lab, put) -> None:
    """Only what is still broken the second time is taken apart."""
    put("u1", body("a", "b")[:-9], body("a", "b"))
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]
    assert bench.rows("SELECT * FROM cp_dead_letter") == []


def test_bad_bytes_in_one_event_cost_no_other(bench, lab, put) -> None:
    """A lone surrogate travels as it came; invalid UTF-8 becomes a dead letter."""
    lone, invalid = b'{"id": "half \\ud83d"}', b'{"id": "\xff"}'
    put("u1", b"[" + b",".join([body("a")[1:-1], lone, invalid, body("b")[1:-1]]) + b"]")
    ended = bench.run(forward(bench, filter='event.id != "nobody"'))
    assert ended.exit_code == 1
    assert lab.taken["collect"] == [b'{"id": "a"}', lone, b'{"id": "b"}']
    ((reason, raw, position),) = bench.rows("SELECT reason, body, position FROM cp_dead_letter")
    assert (reason, raw, position) == ("invalid UTF-8 at byte 8", invalid, 2)


def test_an_event_that_the_trigger_cannot_read_is_kept(bench, lab, put, monkeypatch) -> None:
    """The trigger fails on it; the others arrive."""
    from lab_plugin import Source

    monkeypatch.setattr(Source, "delivery_key", lambda _self, event: event.data["id"].lower())
    put("u1", b'[{"id": "a"}, {"id": 5}, {"id": "b"}]')
    assert bench.run(forward(bench)).exit_code == 1
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]
    ((raw, reason),) = bench.rows("SELECT body, reason FROM cp_dead_letter")
    assert raw == b'{"id": 5}'
    assert "'int' object has no attribute 'lower'" in reason


def test_a_service_that_fails_once_is_asked_again(bench, lab, put) -> None:
    """No unit is blamed for a network that is down, and the others do not wait behind it."""
    put("u1", RetryableError("no route"), body("a"))
    put("u2", body("b"))
    ended = bench.run(forward(bench))
    assert ended.exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]
    assert bench.rows("SELECT attempts FROM cp_unit WHERE unit_key = 'u1'") == [(0,)]


def test_a_unit_that_answers_errors_for_ever_is_set_aside(bench, lab, put, monkeypatch) -> None:
    """After a number of attempts, so that the feed can come to an end."""
    monkeypatch.setattr(reception, "UNIT_ATTEMPTS", 3)
    put("u1", RetryableError("500", status=500, **SOON))
    put("u2", body("b"))
    assert bench.run(forward(bench)).exit_code == 1
    assert lab.fetched.count("u1") == 3
    assert bench.rows("SELECT reason FROM cp_unit WHERE unit_key = 'u1'") == [
        ("500 (3 attempts, others were given)",)
    ]


def test_a_source_that_fails_for_every_unit_blames_none(bench, lab, put, monkeypatch) -> None:
    """An outage of some seven attempts a unit, where two are enough to be set aside: all arrives after it."""
    monkeypatch.setattr(reception, "UNIT_ATTEMPTS", 2)
    from lab_plugin import Source

    fetch, left = Source.fetch, iter(range(40))

    def is_down(self: Any, context: Any, unit: Any) -> bytes:
        if next(left, None) is not None:
            raise RetryableError("503 busy", status=503)
        return fetch(self, context, unit)

    monkeypatch.setattr(Source, "fetch", is_down)
    for number in range(6):
        put(f"u{number}", body(f"e{number}"))
    ended = bench.run(forward(bench))
    assert (ended.exit_code, ended.notices) == (0, {})
    assert len(lab.taken["collect"]) == 6
    assert bench.rows("SELECT DISTINCT status, attempts FROM cp_unit") == [("fetched", 0)]


def test_a_source_that_is_down_is_asked_less_and_less(bench, lab, put, monkeypatch) -> None:
    """Of the units that wait, few are asked for in the last five minutes of ten; the notice says why."""
    monkeypatch.setattr(reception, "LONGEST_DELAY", 60.0)
    stop = threading.Event()
    asked_for: list[int] = []

    class Clock:
        """Five seconds pass whenever a thread looks whether it may fetch."""

        seconds = 0.0

        def monotonic(self) -> float:
            self.seconds += 5
            if self.seconds >= 300 * (len(asked_for) + 1):
                asked_for.append(len(lab.fetched))
            if len(asked_for) >= 2:
                stop.set()
            return self.seconds

    monkeypatch.setattr(fetching, "time", Clock())
    for number in range(200):
        put(f"u{number}", RetryableError("503 busy", status=503))
    ended = bench.run(forward(bench), stop=stop)
    assert ended.exit_code == 130
    assert list(ended.notices.values()) == ["503 busy; trying again, its units wait until it answers"]
    halfway, at_the_end = asked_for[:2]
    assert halfway >= blame.SEVERAL
    assert at_the_end - halfway <= 15
    assert bench.rows("SELECT DISTINCT status FROM cp_unit") == [("listed",)]


def test_several_bad_units_that_are_left_over_are_set_aside_in_the_end(bench, lab, put, monkeypatch) -> None:
    """It may be an outage that caught them, so there are pauses; but the others came, and these never do."""
    monkeypatch.setattr(reception, "UNIT_ATTEMPTS", 3)
    for number in range(6):
        put(f"a{number}", RetryableError("503 busy", status=503))
        put(f"b{number}", body(f"e{number}"))
    ended = bench.run(forward(bench))
    assert (ended.exit_code, len(lab.taken["collect"])) == (1, 6)
    reason = "503 busy (3 attempts, others were given)"
    assert (
        bench.rows("SELECT status, reason FROM cp_unit WHERE unit_key LIKE 'a%'")
        == [("quarantined", reason)] * 6
    )
    assert not any("trying again" in text for text in ended.notices.values())


def test_a_unit_that_is_alone_is_given_up_only_by_a_session_that_is_to_end(
    bench, lab, put, monkeypatch
) -> None:
    """No other one shows whether it is the unit or the source, so it gets many more attempts."""
    monkeypatch.setattr(reception, "UNIT_ATTEMPTS", 2)
    monkeypatch.setattr(reception, "ALONE_ATTEMPTS", 7)
    monkeypatch.setattr(reception, "LONGEST_DELAY", 0.01)
    put("u1", RetryableError("503 busy", status=503))
    ended = bench.run(forward(bench))
    assert (ended.exit_code, len(lab.fetched)) == (1, 7)
    assert bench.rows("SELECT status, reason FROM cp_unit") == [
        ("quarantined", "503 busy (7 attempts, and no other unit came)")
    ]
    assert not any("trying again" in text for text in ended.notices.values())
    with bench.store() as database:
        book = Ledger(database)
        assert book.retry(book.feeds(), ()) == 1

    stop, fetch = threading.Event(), lab.units["u1"][1]
    fetch[:] = [RetryableError("503 busy", status=503)] * 20 + [body("a")]
    lab.refuses = lambda _raw: stop.set()
    assert bench.run(forward(bench), once=False, stop=stop).exit_code == 130
    assert ids(lab.taken["collect"]) == ["a"]


def test_a_unit_that_is_refused_alone_holds_back_no_other(bench, lab, put, monkeypatch) -> None:
    """A 403 on one blob: the others arrive in the same session, and the one is set aside in the end."""
    monkeypatch.setattr(reception, "UNIT_ATTEMPTS", 3)
    put("u0", BlockedError("403 forbidden", status=403))
    for number in range(1, 30):
        put(f"u{number}", body(f"e{number}"))
    ended = bench.run(forward(bench))
    assert ended.exit_code == 1
    assert len(lab.taken["collect"]) == 29
    ((status, reason),) = bench.rows("SELECT status, reason FROM cp_unit WHERE unit_key = 'u0'")
    assert (status, reason) == ("quarantined", "403 forbidden (3 attempts, others were given)")
    assert 3 <= lab.fetched.count("u0") <= 5


def test_a_source_that_refuses_every_unit_is_blocked_and_blames_none(bench, lab, put) -> None:
    """A permission that was taken away: exit code 3, and everything arrives once it is back."""
    for number in range(30):
        put(f"u{number}", BlockedError("403 AF10001", status=403))
    ended = bench.run(forward(bench))
    assert (ended.exit_code, lab.taken["collect"]) == (3, [])
    assert any("AF10001" in text for text in ended.notices.values())
    assert bench.rows("SELECT DISTINCT status, attempts FROM cp_unit") == [("listed", 0)]
    for number in range(30):
        put(f"u{number}", body(f"e{number}"))
    assert bench.run(forward(bench)).exit_code == 0
    assert len(lab.taken["collect"]) == 30


def test_a_missing_secret_is_no_fault_of_a_unit(bench, lab, put, monkeypatch) -> None:
    """The source is blocked; when the secret is there again, everything arrives."""
    monkeypatch.setattr(reception, "LONGEST_DELAY", 60.0)  # not tried again before anybody saw it
    put(
        "u1", ConfigError("connections.acme.api_key: the environment variable ACME_KEY is not set"), body("a")
    )
    ended = bench.run(forward(bench))
    assert ended.exit_code == 3
    assert any("ACME_KEY" in text for text in ended.notices.values())
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a"]


def test_filters_transforms_and_condition_errors_are_counted(bench, lab, put) -> None:
    """Every event of a unit is in exactly one of the counts."""
    events = [
        {"id": "1", "n": 1},
        {"id": "2", "n": 5},
        {"id": "3", "n": "x"},
        {"id": "4", "n": 7, "drop": True},
    ]
    put("u1", json.dumps(events).encode())
    playbook = forward(bench, filter="event.n > 2", steps=[{"uses": "lab.shift"}])
    ended = bench.run(playbook)
    assert sorted(ids(lab.taken["collect"])) == ["2"]
    assert bench.rows("SELECT delivered, filtered, condition_errors, dropped FROM cp_acknowledgement") == [
        (1, 2, 1, 1)
    ]
    assert "filter" in next(iter(ended.notices))


def test_a_page_and_its_cursor_are_stored_together(bench, lab) -> None:
    """A sink that is down does not make the source repeat a page, nor lose one."""
    lab.pages = [Page((b'{"id":"a"}',), {"page": 1}, more=True), Page((b'{"id":"b"}',), {"page": 2})]
    playbook = forward(bench, trigger={"uses": "lab.log"})
    lab.refusals["collect"].append(BlockedError("401"))
    assert bench.run(playbook).exit_code == 3
    assert lab.polled == [None, {"page": 1}]
    assert bench.run(playbook).exit_code == 0
    assert lab.polled[2:] == [{"page": 2}]
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]
    assert bench.rows("SELECT * FROM cp_spool") == []


def test_what_was_left_between_two_pages_is_not_the_end_of_it(bench, lab, monkeypatch) -> None:
    """A sweep that somebody else began ends with what could be seen then; the source is asked once more."""
    from lab_plugin import Log

    lab.pages = [Page((b'{"id":"a"}',), {"page": 1}, more=True)]
    playbook, polls = forward(bench, trigger={"uses": "lab.log"}), Log.poll

    def cut_off(self: Any, context: Any, cursor: Any, since: Any) -> Page:
        if cursor is not None:
            raise PermanentError("500: no")
        return polls(self, context, cursor, since)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "poll", cut_off)
        assert bench.run(playbook).exit_code == 1
    lab.pages += [Page((b'{"id":"b"}',), {"page": 2}), Page((b'{"id":"c"}',), {"page": 3})]
    assert bench.run(playbook).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a", "b", "c"]
    assert bench.run(playbook).exit_code == 0
    assert lab.polled == [None, {"page": 1}, {"page": 2}, {"page": 3}]


def test_a_poll_that_fails_moves_nothing(bench, lab, monkeypatch) -> None:
    """The next session asks from the same place."""
    from lab_plugin import Log

    def fails(*_: Any) -> Page:
        raise PermanentError("500: no")

    lab.pages = [Page((b'{"id":"a"}',), {"page": 1})]
    playbook = forward(bench, trigger={"uses": "lab.log"})
    with monkeypatch.context() as patch:
        patch.setattr(Log, "poll", fails)
        assert bench.run(playbook).exit_code == 1
    assert bench.run(playbook).exit_code == 0
    assert lab.polled == [None]
    assert sorted(ids(lab.taken["collect"])) == ["a"]


def test_a_page_that_does_not_change_is_no_failure(bench, lab) -> None:
    """A low-water mark may stand still, and the same record come again."""
    lab.pages = [Page((b'{"id":"a"}',), {"page": 1}), Page((b'{"id":"a"}',), {"page": 1})]
    playbook = forward(bench, trigger={"uses": "lab.log"})
    for _ in range(3):
        assert bench.run(playbook).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a"]


def test_a_later_playbook_on_a_polled_source_gets_its_look_back(bench, lab) -> None:
    """It polls from the beginning for itself, and the first one gets nothing twice."""
    lab.pages = [Page((b'{"id":"a"}',), {"page": 1})]
    one = forward(bench, "one", trigger={"uses": "lab.log"})
    two = forward(bench, "two", trigger={"uses": "lab.log"})
    assert bench.run(one).exit_code == 0
    assert bench.run(one, two).exit_code == 0
    assert sorted(ids(lab.taken["one"])) == ["a"]
    assert sorted(ids(lab.taken["two"])) == ["a"]
    assert lab.polled.count(None) >= 2, "the second one began where the first one was"


def test_events_given_by_hand_are_for_one_playbook(bench, lab) -> None:
    """Another one with the same trigger does not take them as its own afterwards."""
    one, two = forward(bench, "one"), forward(bench, "two")
    for playbook in (two, one, two):
        assert bench.run(playbook, events=[b'{"id":"same"}']).exit_code == 0
    assert bench.run(two).exit_code == 0
    assert (len(lab.taken["one"]), len(lab.taken["two"])) == (1, 2)


def test_a_stop_ends_between_units_and_loses_nothing(bench, lab, put) -> None:
    """Exit code 130; the next session delivers what is left, without what was delivered."""
    stop = threading.Event()

    def refuses(_raw: bytes) -> bool:
        stop.set()
        return False

    put("u1", body("a"))
    put("u2", body("b"))
    lab.refuses = refuses
    assert bench.run(forward(bench), stop=stop, once=False).exit_code == 130
    first = ids(lab.taken["collect"])
    assert first
    recorded = bench.rows("SELECT coalesce(sum(records), 0) FROM cp_delivery")
    assert recorded == [(len(first),)]
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]


def test_what_was_delivered_is_recorded_while_other_units_are_on_their_way(
    bench, lab, put, monkeypatch
) -> None:
    """One whose answer takes its time does not keep from the ledger what a receiver has."""
    from lab_plugin import Source

    recorded: list[Any] = []
    fetch = Source.fetch

    def slow(self: Any, context: Any, unit: Any) -> bytes:
        if unit.id == "u2":
            until = time.monotonic() + 20.0
            while time.monotonic() < until and not recorded:
                recorded.extend(bench.rows("SELECT unit_id FROM cp_acknowledgement"))
        return fetch(self, context, unit)

    monkeypatch.setattr(Source, "fetch", slow)
    put("u1", body("a"))
    put("u2", body("b"))
    assert bench.run(forward(bench)).exit_code == 0
    assert recorded, "u1 was not on record before u2 was there"
    assert sorted(ids(lab.taken["collect"])) == ["a", "b"]


def test_what_retention_took_is_a_recorded_gap(bench, lab, put, monkeypatch) -> None:
    """A session that comes too late names the hole, goes on past it, and says so once."""
    from lab_plugin import Source

    monkeypatch.setattr(Source, "retention", timedelta(hours=4))
    assert bench.run(forward(bench)).exit_code == 0  # a new subscriber begins where it can be read
    old = (now() - timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_subscription SET mark = ?1, listed = ?1, seen = ?1", (old,))
    put("u1", body("a"), minutes_ago=30)
    ended = bench.run(forward(bench))
    assert ended.exit_code == 1
    assert sorted(ids(lab.taken["collect"])) == ["a"]
    ((start,),) = bench.rows("SELECT start FROM cp_gap")
    assert start == old
    assert bench.run(forward(bench)).exit_code == 0


def test_a_state_file_that_fails_ends_the_session_with_its_reason(bench, lab, put) -> None:
    """A worker that was replaced on a polled feed stops at once."""
    lab.pages = [Page((b'{"id":"a"}',), {"page": 1})]
    playbook = forward(bench, trigger={"uses": "lab.log"})
    from lab_plugin import Log

    original = Log.poll

    def overtaken(self: Any, *rest: Any) -> Page:
        with bench.store() as database, database.write() as connection:
            connection.exec_driver_sql("UPDATE cp_feed SET epoch = epoch + 1")
        return original(self, *rest)

    Log.poll = overtaken
    try:
        with pytest.raises(StateError, match="taken over by another worker"):
            bench.run(playbook)
    finally:
        Log.poll = original
    assert bench.run(playbook).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a"]


def test_an_event_that_vanished_from_the_unit_that_owned_it_is_not_lost(bench, lab, put) -> None:
    """A service that once answered u1 with an event of u2 does not make that one a duplicate for ever."""
    put("u1", body("a", "b"), body("a"))
    put("u2", RetryableError("500", status=500, **SOON), body("b"))
    lab.refusals["collect"].append(BlockedError("401"))
    assert bench.run(forward(bench)).exit_code == 3
    lab.units["u2"][1][:] = [body("b", "c")]
    assert bench.run(forward(bench)).exit_code == 0
    assert sorted(ids(lab.taken["collect"])) == ["a", "b", "c"]


def test_a_playbook_is_told_what_is_missing(bench, lab, put) -> None:
    """An event of std.gaps for a unit that was lost, once."""
    watch = bench.playbook(
        "watch", trigger={"uses": "std.gaps"}, sinks=[{"uses": "lab.store", "with": {"to": "watch"}}]
    )
    put("u1", GoneError("AF20051"))
    assert bench.run(forward(bench)).exit_code == 1
    for _ in range(2):
        assert bench.run(watch).exit_code == 0
        ((told),) = [json.loads(raw) for raw in lab.taken["watch"]]
        assert (told["kind"], told["unit"], told["cause"]) == ("lost", "u1", "AF20051")


def test_what_a_polled_source_no_longer_keeps_is_a_gap(bench, lab) -> None:
    """Named once for each playbook, from where it began; the rest arrives, and the exit code says it."""
    edge = now() - timedelta(hours=1)
    lost = Gap(edge - timedelta(days=9), edge, "the service keeps it for 7 days")
    lab.pages = [Page((b'{"id":"a"}',), {"page": 1}, gap=lost), Page((), {"page": 2}, gap=lost)]
    playbook = forward(bench, trigger={"uses": "lab.log"})

    first, second = bench.run(playbook), bench.run(playbook)

    assert (first.exit_code, first.figures["gaps"]) == (1, 1)
    assert (second.exit_code, second.figures.get("gaps", 0)) == (0, 0)
    assert ids(lab.taken["collect"]) == ["a"]
    ((since, start, end, cause),) = bench.rows(
        "SELECT s.since, g.start, g.end, g.cause FROM cp_gap g JOIN cp_subscription s USING (feed_id)"
    )
    assert (start, cause) == (since, "the service keeps it for 7 days")
    assert end.startswith(edge.isoformat()[:19])
