"""Cases of playbooks: what is given is what the playbook sees, and what is expected is what it does."""

from __future__ import annotations

from typing import Any

import pytest

USER = {"id": "u1", "userPrincipalName": "ada@contoso.example"}
GET = {
    "id": "user",
    "uses": "m365.get_user",
    "connection": "contoso",
    "with": {"user_id": "{{ event.user }}"},
}
BLOCK = {
    "id": "block",
    "uses": "m365.block_sign_in",
    "connection": "contoso",
    "with": {"user_id": "{{ steps.user.result.id }}"},
}
ASK = {"id": "ask", "uses": "std.approval", "with": {"question": "Block {{ event.user }}?", "timeout": "4h"}}
ANSWERS = {
    "user": {"result": USER},
    "block": {
        "before": {"userPrincipalName": "ada@contoso.example", "accountEnabled": True},
        "result": {"account_enabled": False},
    },
}
EVENT = {"user": "ada@contoso.example"}


def test_a_case_passes_when_everything_is_as_expected(try_case: Any) -> None:
    """Steps, results, effects with their exact writes, and how the run ends."""
    verdict = try_case(
        {"steps": [GET, BLOCK]},
        given={"event": EVENT, "answers": ANSWERS},
        expect={
            "status": "succeeded",
            "steps": {"user": "succeeded", "block": "succeeded"},
            "results": {"user": {"id": "u1"}},
            "effects": [
                {
                    "step": "block",
                    "target": "u1",
                    "subject": "ada@contoso.example",
                    "before": {"accountEnabled": True},
                    "calls": [
                        {"method": "PATCH", "url": "/v1.0/users/u1", "body": {"accountEnabled": False}}
                    ],
                }
            ],
        },
    )
    assert verdict.wrong == ()


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"status": "failed"}, "status: expected failed, was succeeded"),
        ({"steps": {"user": "succeeded"}}, "steps.block: not expected, was succeeded"),
        (
            {"steps": {"user": "skipped", "block": "succeeded"}},
            "steps.user: expected skipped, was succeeded",
        ),
        ({"results": {"user": {"id": "u2"}}}, 'results.user.id: expected "u2", was "u1"'),
        (
            {"results": {"user": {"mail": "x"}}},
            'results.user.mail: expected "x", is missing',
        ),
        ({"effects": []}, "effects[0]: not expected, was m365.block_sign_in on u1 by the step block"),
        (
            {"effects": [{"step": "block"}, {"step": "user"}]},
            "effects[1]: expected one of the step user, was none",
        ),
        (
            {"effects": [{"step": "block", "status": "failed"}]},
            'effects[0].status: expected "failed", was "done"',
        ),
        ({"runs": 2}, "runs: expected 2, were 1"),
        ({"filtered": 1}, "filtered: expected 1, was 0"),
        ({"took": "1m"}, "took: expected 1m, was 0:00:00"),
        ({"questions": ["Really?"]}, 'questions: expected ["Really?"], were []'),
        ({"tenant": {}}, "tenant: nothing was simulated: give `tenant: {}`"),
    ],
)
def test_every_expectation_that_is_not_met_is_told(try_case: Any, expect: dict[str, Any], said: str) -> None:
    """One expectation at a time that must fail: none of them passes whatever happens."""
    verdict = try_case({"steps": [GET, BLOCK]}, given={"event": EVENT, "answers": ANSWERS}, expect=expect)
    assert verdict.wrong == (said,)


def test_a_write_that_differs_is_told(try_case: Any) -> None:
    """The exact calls are compared, body included."""
    calls = [{"method": "PATCH", "url": "/v1.0/users/u1", "body": {"accountEnabled": True}}]
    verdict = try_case(
        {"steps": [GET, BLOCK]},
        given={"event": EVENT, "answers": ANSWERS},
        expect={"effects": [{"step": "block", "calls": calls}]},
    )
    assert verdict.wrong == (
        'effects[0].calls[0]: expected PATCH /v1.0/users/u1 {"accountEnabled": true}, was PATCH '
        'https://graph.microsoft.com/v1.0/users/u1 {"accountEnabled": false}',
    )


def test_a_step_that_nobody_answers_says_what_is_missing_and_asks_nobody(try_case: Any) -> None:
    """The case fails whatever it expects, and nothing leaves the machine."""
    verdict = try_case({"steps": [GET]}, given={"event": EVENT}, expect={"status": "failed"})
    (said,) = verdict.wrong
    assert said.startswith(
        "the step user asks for GET https://graph.microsoft.com/v1.0/users/ada%40contoso.ex"
    )
    assert said.endswith("give `answers: {user: {result: ...}}`, or simulate the services with `tenant: {}`")


def test_the_steps_really_run_against_a_simulated_tenant(try_case: Any) -> None:
    """A state is given, the modules do their work, and the state afterwards is what they made of it."""
    verdict = try_case(
        {"steps": [GET, BLOCK]},
        given={"event": EVENT, "tenant": {"users": [{"userPrincipalName": "ada@contoso.example"}]}},
        expect={
            "status": "succeeded",
            "effects": [{"step": "block", "verified": True}],
            "tenant": {
                "changed": ["ada@contoso.example"],
                "users": {"ada@contoso.example": {"accountEnabled": False}},
            },
        },
    )
    assert verdict.wrong == ()


def test_a_tenant_in_a_state_that_makes_no_sense_is_refused(try_case: Any) -> None:
    """The plugin that simulates says what may stand there."""
    verdict = try_case({"steps": [GET]}, given={"event": EVENT, "tenant": {"user": []}}, expect={"runs": 1})
    assert verdict.wrong == ("tenant.user: there is no such member; write users, objects, licence, scenario",)


@pytest.mark.parametrize(
    ("approvals", "steps", "result", "took"),
    [
        (
            {"ask": {"say": "approve", "by": "bob", "after": "90m"}},
            {"user": "succeeded", "ask": "succeeded", "block": "succeeded"},
            {"approved": True, "by": ["bob"], "timed_out": False},
            "90m",
        ),
        (
            {"ask": {"say": "deny", "comment": "a test account"}},
            {"user": "succeeded", "ask": "succeeded", "block": "skipped"},
            {"approved": False, "comment": "a test account"},
            "0s",
        ),
        (
            {},
            {"user": "succeeded", "ask": "succeeded", "block": "skipped"},
            {"approved": False, "timed_out": True},
            "4h",
        ),
    ],
)
def test_people_answer_as_it_is_given_and_hours_take_a_moment(
    try_case: Any, approvals: Any, steps: Any, result: Any, took: str
) -> None:
    """A question is approved, denied, or runs out of time, in the case's own time."""
    verdict = try_case(
        {"steps": [GET, ASK, {**BLOCK, "when": "steps.ask.result.approved"}]},
        given={"event": EVENT, "answers": ANSWERS, "approvals": approvals},
        expect={
            "steps": steps,
            "results": {"ask": result},
            "took": took,
            "questions": ["Block ada@contoso.example?"],
        },
    )
    assert verdict.wrong == ()


def test_an_answer_that_does_not_count_is_told(try_case: Any) -> None:
    """One person cannot approve twice; a test that relies on it proves nothing."""
    ask = {**ASK, "with": {**ASK["with"], "people": 2}}  # type: ignore[dict-item]
    said = [{"say": "approve", "by": "bob"}, {"say": "approve", "by": "bob"}]
    verdict = try_case(
        {"steps": [ask]}, given={"event": EVENT, "approvals": {"ask": said}}, expect={"runs": 1}
    )
    (text,) = verdict.wrong
    assert text.startswith("what bob says to ask does not count: a-")


def test_an_answer_to_a_question_that_nobody_puts_is_told(try_case: Any) -> None:
    """The step is skipped, so the approval that is given for it is a mistake of the test."""
    verdict = try_case(
        {"steps": [{**ASK, "when": "false"}]},
        given={"event": EVENT, "approvals": {"ask": {"say": "approve"}}},
        expect={"status": "succeeded"},
    )
    assert verdict.wrong == ("`approvals: ask`: nobody was asked there",)


def test_attempts_get_one_answer_each(try_case: Any) -> None:
    """A step that is tried again sees the next answer; back-offs pass in the case's time."""
    verdict = try_case(
        {"steps": [{**GET, "retry": {"attempts": 3, "backoff": "30s"}}]},
        given={
            "event": EVENT,
            "answers": {
                "user": [
                    {"error": "Graph answered 503", "kind": "retryable"},
                    {"error": "Graph answered 503", "kind": "retryable"},
                    {"result": USER},
                ]
            },
        },
        expect={"status": "succeeded", "took": "90s"},
    )
    assert verdict.wrong == ()


def test_an_attempt_that_takes_too_long_times_out(try_case: Any) -> None:
    """`takes` beyond the step's timeout."""
    verdict = try_case(
        {"steps": [{**GET, "timeout": "60s"}]},
        given={"event": EVENT, "answers": {"user": {"takes": "5m", "result": USER}}},
        expect={"status": "failed", "error": "timed out after 60 s"},
    )
    assert verdict.wrong == ()


def test_waits_pass_at_once(try_case: Any) -> None:
    """Seven days of `std.wait` are seven days for the playbook alone."""
    verdict = try_case(
        {"steps": [{"id": "rest", "uses": "std.wait", "with": {"duration": "7d"}}]},
        given={"event": EVENT},
        expect={"status": "succeeded", "took": "7d"},
    )
    assert verdict.wrong == ()
    assert verdict.seconds < 60


WATCHED = {**BLOCK, "verify": {"after": ["5m", "24h"]}}
SYNC = "m365.block_sign_in on ada@contoso.example, made 24h ago by step block, does not hold any more"


def test_later_looks_at_an_effect_are_played(try_case: Any) -> None:
    """What an answer says of each look is what the watch sees, after the run and in the case's own time."""
    shown = {"block": {**ANSWERS["block"], "verified": True, "looks": {"24h": False}}}
    verdict = try_case(
        {"steps": [GET, WATCHED]},
        given={"event": EVENT, "answers": {**ANSWERS, **shown}},
        expect={
            "status": "succeeded",
            "took": "0s",
            "looks": [
                {"step": "block", "after": "5m", "held": True, "report": None},
                {"step": "block", "after": "24h", "held": False, "report": SYNC},
            ],
        },
    )
    assert verdict.wrong == ()


def test_a_look_that_cannot_read_the_target_is_tried_again_and_reported(try_case: Any) -> None:
    """A text instead of true or false is why; an action that cannot tell reports nothing."""
    shown = {"block": {**ANSWERS["block"], "looks": {"5m": "Graph answered 404"}}}
    verdict = try_case(
        {"steps": [GET, WATCHED]},
        given={"event": EVENT, "answers": {**ANSWERS, **shown}},
        expect={
            "looks": [
                {"step": "block", "after": "5m", "held": None, "report": "cannot be read back: Graph"},
                {"step": "block", "after": "24h", "held": None, "report": None},
            ],
        },
    )
    assert verdict.wrong == ()


def test_what_others_change_in_the_tenant_is_seen_by_the_looks(try_case: Any) -> None:
    """A synchronisation opens the account again while a later step waits; looks are made in between."""
    ada = {"userPrincipalName": "ada@contoso.example"}
    verdict = try_case(
        {"steps": [GET, WATCHED, {"id": "rest", "uses": "std.wait", "with": {"duration": "1h"}}]},
        given={
            "event": EVENT,
            "tenant": {"users": [ada]},
            "meanwhile": [{"after": "2h", "tenant": {"users": [{**ada, "accountEnabled": True}]}}],
        },
        expect={
            "took": "1h",
            "looks": [
                {"step": "block", "after": "5m", "held": True},
                {"step": "block", "after": "24h", "held": False, "report": SYNC},
            ],
            "tenant": {"users": {"ada@contoso.example": {"accountEnabled": True}}},
        },
    )
    assert verdict.wrong == ()


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([], "looks[0]: not expected, was one after 5m at the step block"),
        ([{"step": "block", "after": "5m", "held": False}], "looks[0].held: expected false, was true"),
        (
            [{"step": "block", "after": "5m", "report": "does not hold"}],
            'looks[0].report: expected "does not hold", was null',
        ),
        (
            [{"step": "block", "after": "5m"}, {"step": "block", "after": "5m"}],
            "looks[1]: expected one after 5m at the step block, was none",
        ),
    ],
)
def test_a_look_that_is_not_as_expected_is_told(try_case: Any, looks: list[Any], said: str) -> None:
    """Each of them fails by itself."""
    answers = {**ANSWERS, "block": {**ANSWERS["block"], "looks": {"5m": True}}}
    verdict = try_case(
        {"steps": [GET, {**BLOCK, "verify": {"after": ["5m"]}}]},
        given={"event": EVENT, "answers": answers},
        expect={"looks": looks},
    )
    assert verdict.wrong == (said,)


def test_what_others_can_change_is_named_where_it_makes_no_sense(try_case: Any) -> None:
    """A licence does not change in a case."""
    verdict = try_case(
        {"steps": [GET]},
        given={
            "event": EVENT,
            "tenant": {"users": [{"userPrincipalName": "ada@contoso.example"}]},
            "meanwhile": [{"after": "1m", "tenant": {"licence": "e3"}}],
        },
        expect={"runs": 1},
    )
    assert verdict.wrong == ("meanwhile.tenant.licence: there is no such member; write users, objects",)


def test_loops_branches_and_handlers_are_named_as_in_a_plan(try_case: Any) -> None:
    """`block[1]` is the second element; an answer for `block` is for all that have none of their own."""
    verdict = try_case(
        {
            "steps": [
                {
                    **BLOCK,
                    "for_each": "event.users",
                    "with": {"user_id": "{{ item }}"},
                    "on_error": "continue",
                },
                {"parallel": [{**GET, "id": "one"}, {**GET, "id": "two"}]},
            ]
        },
        given={
            "event": {"users": ["u1", "u2"], "user": "u1"},
            "answers": {
                "block": {"result": {"account_enabled": False}},
                "block[1]": {"error": "an administrator"},
                "one": {"result": USER},
                "two": {"result": USER},
            },
        },
        expect={
            "status": "succeeded",
            "steps": {"block[0]": "succeeded", "block[1]": "failed", "one": "succeeded", "two": "succeeded"},
            "effects": [{"step": "block[0]"}, {"step": "block[1]", "status": "failed"}],
        },
    )
    assert verdict.wrong == ()


def test_a_guard_that_asks_is_answered_like_any_question(try_case: Any) -> None:
    """`guardrails` hold in a case as in a workspace."""
    verdict = try_case(
        {"steps": [GET, BLOCK]},
        given={
            "event": EVENT,
            "answers": ANSWERS,
            "guardrails": {"effects_per_hour": {"m365.block_sign_in": 0}},
            "approvals": {"block": {"say": "deny", "by": "bob"}},
        },
        expect={"status": "failed", "error": "nobody agreed to it", "effects": []},
    )
    assert verdict.wrong == ()


def test_events_are_counted_as_in_a_run(try_case: Any) -> None:
    """Filter, `once_per` and its window, with events that arrive over two hours."""
    events = [
        {"event": {"user": "ada", "n": 1}},
        {"event": {"user": "ada", "n": 2}, "after": "10m"},
        {"event": {"user": "eve", "n": 0}},
        {"event": {"user": "ada", "n": 3}, "after": "1h"},
    ]
    verdict = try_case(
        {
            "filter": "event.n > 0",
            "once_per": {"key": "{{ event.user }}", "window": "1h"},
            "steps": [{**GET, "id": "user"}],
        },
        given={"events": events, "answers": {"user": {"result": USER}}},
        expect={
            "filtered": 1,
            "suppressed": 1,
            "runs": [{"status": "succeeded"}, {"status": "succeeded"}],
            "took": "70m",
        },
    )
    assert verdict.wrong == ()
    assert {branch for _, point, branch in verdict.facts if point in ("filter", "once_per")} == {
        "passed",
        "dropped",
        "first",
        "held back",
    }


def test_sinks_keep_their_records_and_send_nothing(try_case: Any, tmp_path: Any) -> None:
    """A file sink writes no file; its records are there to be compared."""
    verdict = try_case(
        {"sinks": [{"uses": "std.jsonl", "with": {"path": "out.jsonl"}}]},
        given={"event": {"a": 1}},
        expect={"sinks": {"std.jsonl": "events"}},
    )
    assert verdict.wrong == ()
    assert not (tmp_path / "out.jsonl").exists()
    verdict = try_case(
        {"sinks": [{"uses": "std.jsonl", "with": {"path": "out.jsonl"}}]},
        given={"event": {"a": 1}},
        expect={"sinks": {"std.jsonl": [{"a": 2}]}},
    )
    assert verdict.wrong == ("sinks.std.jsonl[0].a: expected 2, was 1",)


def test_a_playbook_that_is_called_is_played_too(try_case: Any, tmp_path: Any) -> None:
    """Its steps are named below the step that calls it."""
    (tmp_path / "playbooks" / "inner.yaml").write_text(
        "name: inner\ntrigger: {uses: std.manual}\nsteps:\n"
        "  - {id: user, uses: m365.get_user, connection: contoso, with: {user_id: a}}\n"
    )
    verdict = try_case(
        {"steps": [{"id": "call", "uses": "std.run_playbook", "with": {"playbook": "inner"}}]},
        given={"event": EVENT, "answers": {"call/user": {"result": USER}}},
        expect={"status": "succeeded", "steps": {"call": "succeeded", "call/user": "succeeded"}},
    )
    assert verdict.wrong == ()
    assert ("inner", "step user", "taken") in verdict.facts


def test_an_effect_whose_outcome_is_unknown_is_settled_as_the_action_says(try_case: Any) -> None:
    """`kind: unknown`: the answer was lost, and reading back does not show the effect."""
    verdict = try_case(
        {"steps": [{**BLOCK, "with": {"user_id": "u1"}}]},
        given={"event": EVENT, "answers": {"block": {"error": "no answer came", "kind": "unknown"}}},
        expect={"status": "failed", "effects": [{"step": "block", "status": "failed"}]},
    )
    assert verdict.wrong == ()
