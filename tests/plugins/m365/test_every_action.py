"""What holds for every action of m365 that is registered, on a simulated tenant, request by request.

Plan and undo through whole runs are rules of the conformance kit, to which tests/plugins/test_every_module.py
holds each action; whole runs that are killed are in tests/effects/test_killed.py.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jsonschema
import pytest
from tests.fixtures.graph_contract import Watched
from tests.fixtures.m365_actions import (
    HOST,
    NOWHERE,
    actions,
    comparable,
    delete_a_rule,
    empower,
    example,
    inverse,
    nowhere,
    reassign,
    remove_target,
)

from counterplay import Action, EffectIntent, InterruptedWork, StepContext, hookimpl
from counterplay.budgets import Budgets
from counterplay.plugins import ModuleInfo
from counterplay.runtime.effects import EffectRunner, Targets
from counterplay.runtime.first_write import TRUSTED
from counterplay.runtime.planning import rehearse, way_back
from counterplay.runtime.planning_wire import PlanningWire
from counterplay.runtime.results import Outcome
from counterplay.runtime.undo import prospects
from counterplay.store.database import open_database
from counterplay.store.runs import EffectEnd, Lease, NewRun, RunStore, StoredEffect, run_id
from counterplay_m365.tenant import Tenant
from counterplay_sim.digest import state
from counterplay_sim.faults import Fault, FaultPlan
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness

DENIED = json.dumps(
    {
        "error": {
            "code": "Authorization_RequestDenied",
            "message": "Insufficient privileges.",
            "innerError": {},
        }
    }
)
BUSY = json.dumps({"error": {"code": "TooManyRequests", "message": "Too many requests."}})
EFFECTS = actions(effect=True)
#: Effects that happen anew each time, and why that is no harm.
NOT_IDEMPOTENT = {
    "m365.comment_alert": "each comment is one more",
    "m365.comment_incident": "each comment is one more",
    "m365.force_password_change": "another password that nobody knows",
    "m365.revoke_sessions": "sessions are valid from a later time on",
}
_RISK = "the risk of a user outlives the user"
OUTLIVES_ITS_USER = {"m365.confirm_compromised": _RISK, "m365.dismiss_risk": _RISK}
#: What somebody may do to a target besides the same: an undo has to go back to that.
OTHERWISE: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    **{f"m365.{verb}_alert": reassign("alert") for verb in ("assign", "classify", "update")},
    **{f"m365.{verb}_incident": reassign("incident") for verb in ("assign", "classify", "update")},
    "m365.delete_inbox_rules": delete_a_rule,
    "m365.disable_inbox_rules": delete_a_rule,
    "m365.enable_inbox_rules": delete_a_rule,
}
every_action = pytest.mark.parametrize("info", actions(), ids=lambda info: info.uses)
every_effect = pytest.mark.parametrize("info", EFFECTS, ids=lambda info: info.uses)


class Faults(FaultPlan):
    """Says what writes came, and can pull the plug when the first one does."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[str, str]] = []
        self.plug: tuple[threading.Event, str] | None = None

    def pick(self, service: str, method: str, target: str) -> Fault | None:
        if service == "graph" and method not in ("GET", "HEAD") and "runHuntingQuery" not in target:
            self.writes.append((method, target))
            if self.plug is not None:
                stop, when = self.plug
                self.plug = None
                stop.set()
                return Fault(reset=when)
        return super().pick(service, method, target)


@dataclass
class Ground:
    """One simulated tenant for all tests of this file, brought back to its first state after each."""

    simulator: Simulator
    faults: Faults
    runs: RunStore
    connection: Tenant
    first: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tenant(self) -> Any:
        (found,) = self.simulator._tenants.values()
        return found

    def state(self) -> dict[str, Any]:
        return state(self.simulator.state_dir)

    def remember(self) -> None:
        """What there is now is the first state."""
        kinds = {key.partition("/")[0] for key in self.state()} | {"machineAction", "sessions"}
        self.first = {
            kind: {key: copy.deepcopy(self.tenant.objects[kind][key]) for key in self.tenant.objects[kind]}
            for kind in kinds
        }

    def restore(self) -> None:
        """Bring the tenant back to its first state, as if by hand."""
        for kind, known in self.first.items():
            there = self.tenant.objects[kind]
            for key in list(there):
                if key not in known:
                    there.remove(key)
            for key, item in known.items():
                if key not in there or there[key] != item:
                    there.put(key, copy.deepcopy(item))

    def prepared(self, info: ModuleInfo) -> dict[str, Any]:
        """The arguments of an example, in the state in which the action has something to do."""
        found = example(info.uses, self.tenant)
        if found.first is None:
            return found.arguments
        uses, given = found.first
        made = Attempt(self, uses, given)
        done = made.go()
        assert done.status == "succeeded", done.error
        effect = made.journal()
        return inverse(uses, given, effect.before if effect else None, done.result)


@dataclass
class Attempt:
    """An action as a run tries it: guarded, journalled, sent, settled."""

    ground: Ground
    uses: str
    arguments: dict[str, Any]
    guardrails: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""
    meanwhile: Callable[[], None] | None = None
    """What somebody else does between the look at the target and the first write, which waits for long."""

    def __post_init__(self) -> None:
        """The journal's entries belong to a run."""
        key = str(uuid.uuid4())
        self.run_id = run_id("tenant", "test", key)
        new = NewRun(self.run_id, "tenant", "test", key, {"name": "test"}, b"{}", {}, {}, {})
        with self.ground.runs.database.write() as connection:
            self.ground.runs.add(connection, [new])
        assert self.ground.runs.begin(self.run_id, 1)

    def go(self, stop: threading.Event | None = None) -> Outcome:
        """One attempt. InterruptedWork: `stop` was set meanwhile."""
        action = self.action()
        runs = self.ground.runs
        targets = Targets(runs.database)
        trusted = TRUSTED if self.meanwhile is None else 0.0
        runner = EffectRunner(HOST, runs, targets, lambda value: value, self.guardrails, trusted)
        with (
            self._in_between(),
            Watched(self.ground.connection, stop=stop, budgets=Budgets(), attempts=3, backoff=0) as http,
        ):
            context = StepContext(
                http=http, connection=self.ground.connection, run_id=self.run_id, step_id="act"
            )
            try:
                outcome = runner.attempt(
                    self.uses, action, context, Lease(self.run_id, 1), "tenant", self.journal()
                )
            finally:
                assert not http.problems, http.problems[0]
        if outcome.effect is not None:
            with self.ground.runs.database.write() as connection:
                end = EffectEnd(outcome.effect, outcome.result, outcome.error)
                self.ground.runs.end_effect(connection, self.run_id, "act", end)
        return outcome

    @contextmanager
    def _in_between(self) -> Iterator[None]:
        """Guards are asked after the look, and before the intent is journalled."""
        if self.meanwhile is None:
            yield
            return
        somebody = _Somebody(self)
        HOST._manager.register(somebody)
        try:
            yield
        finally:
            HOST._manager.unregister(somebody)

    def action(self) -> Action:
        from counterplay.language import with_defaults

        info = HOST.module(self.uses)
        made = info.cls(with_defaults(info.schema, self.arguments))
        assert isinstance(made, Action)
        return made

    def planned(self) -> tuple[list[dict[str, Any]], str | None]:
        """The writes as a plan lists them, and why there may be more."""
        connection = self.ground.connection
        with PlanningWire(connection, budgets=Budgets()) as http:
            _, calls, open_end = rehearse(self.action(), StepContext(http=http, connection=connection))
        return calls, open_end

    def journal(self) -> StoredEffect | None:
        """The journal's entry, as a process that comes after this one finds it."""
        return next(iter(self.ground.runs.effects(self.run_id)), None)


class _Somebody:
    """A plugin whose guard has no objection, and does something else the first time that it is asked."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @hookimpl
    def counterplay_before_effect(self, intent: EffectIntent) -> None:
        meanwhile, self._attempt.meanwhile = self._attempt.meanwhile, None
        if meanwhile is not None and intent.run_id == self._attempt.run_id:
            meanwhile()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A tenant whose application may do everything."""
    root = tmp_path_factory.mktemp("tenant")
    faults = Faults()
    plan = Plan(events=60, users=40, scenarios=("all",), fixed=True)
    strictness = Strictness(graph=GraphRules(throttle_scale=0))
    simulator = Simulator(root, seed=5, plan=plan, strictness=strictness)
    simulator.faults = faults
    with simulator:
        (tenant,) = simulator._tenants.values()
        empower(tenant)
        database = open_database(f"sqlite:///{root / 'state.db'}")
        settings = {**simulator.info()["m365.tenant"], "limits_scale": 50}  # so that nothing has to wait long
        connection = Tenant("contoso", settings)
        made = Ground(simulator, faults, RunStore(database), connection)
        made.remember()
        yield made
        database.close()


@pytest.fixture
def ground(shared: Ground) -> Iterator[Ground]:
    """The tenant in its first state."""
    shared.faults.clear()
    shared.faults.writes.clear()
    yield shared
    shared.faults.clear()
    shared.faults.plug = None
    shared.restore()


@pytest.fixture
def attempt(ground: Ground, info: ModuleInfo) -> Attempt:
    """The action's example, not tried yet; the tenant is such that it has something to do."""
    made = Attempt(ground, info.uses, ground.prepared(info))
    ground.faults.writes.clear()
    return made


def fits(info: ModuleInfo, result: Any) -> None:
    """The result is what the schema says."""
    jsonschema.Draft202012Validator(info.schema["$defs"]["result"]).validate(result)


@every_action
def test_it_does_what_it_says(info: ModuleInfo, attempt: Attempt) -> None:
    """Every request and answer keeps to Microsoft's contract; an effect changes something, and it holds."""
    before = attempt.ground.state()

    outcome = attempt.go()

    assert outcome.status == "succeeded", outcome.error
    fits(info, outcome.result)
    changed = attempt.ground.state() != before
    assert changed is info.cls.effect  # type: ignore[attr-defined]
    if changed:
        assert outcome.effect == "done"
        assert outcome.verified is True
    else:
        assert attempt.ground.faults.writes == []


@every_effect
def test_a_plan_knows_every_call_beforehand(info: ModuleInfo, attempt: Attempt) -> None:
    """Nothing is sent, and what the attempt then sends is what was listed, in order, and no more."""
    before = attempt.ground.state()
    calls, open_end = attempt.planned()
    assert open_end is None
    assert calls, "the example changes nothing, so it shows nothing"
    assert attempt.ground.state() == before
    assert attempt.ground.faults.writes == []

    assert attempt.go().status == "succeeded"

    journalled = attempt.journal()
    assert journalled is not None
    assert journalled.calls == calls


@every_effect
def test_what_takes_it_back_brings_the_tenant_back(info: ModuleInfo, attempt: Attempt) -> None:
    """After the inverse all is as before, but for what an undo cannot bring back, which is named."""
    before = attempt.ground.state()
    done = attempt.go()
    journalled = attempt.journal()
    assert journalled is not None
    back = attempt.action().inverse(journalled.before, done.result or {})
    if back is None:
        assert way_back(attempt.action(), journalled.before)[1] == "it cannot be taken back"
        return

    undone = Attempt(attempt.ground, back.uses, back.arguments).go()

    assert undone.status == "succeeded", undone.error
    assert comparable(info.uses, attempt.ground.state()) == comparable(info.uses, before)


@every_effect
def test_a_repeat_changes_nothing_more(info: ModuleInfo, attempt: Attempt) -> None:
    """A second run finds it done; what happens anew each time is named, with the reason."""
    assert attempt.go().status == "succeeded"
    after = attempt.ground.state()

    again = Attempt(attempt.ground, info.uses, attempt.arguments).go()

    assert again.status == "succeeded", again.error
    fits(info, again.result)
    if info.uses not in NOT_IDEMPOTENT:
        assert attempt.ground.state() == after


@every_effect
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stop_between_intent_and_outcome_is_settled(info: ModuleInfo, attempt: Attempt, when: str) -> None:
    """The process ends with its first write on the way; the next one finds out whether it took effect."""
    before = attempt.ground.state()
    one_write = len(attempt.planned()[0]) == 1  # else the stop leaves a part to be done
    stop = threading.Event()
    attempt.ground.faults.plug = (stop, when)
    with pytest.raises(InterruptedWork):
        attempt.go(stop)
    known = attempt.journal()
    assert known is not None
    assert known.status == "intended"
    landed = attempt.ground.state()
    assert (landed != before) is (when == "after")
    sent = len(attempt.ground.faults.writes)

    outcome = attempt.go()

    assert outcome.status == "succeeded", outcome.error
    assert outcome.effect == "done"
    fits(info, outcome.result)
    assert attempt.ground.state() != before
    if when == "after" and info.cls.settle == "read" and one_write:  # type: ignore[attr-defined]
        assert len(attempt.ground.faults.writes) == sent, "it was done twice"


def test_what_was_created_before_a_stop_is_taken_back_too(ground: Ground) -> None:
    """The process ends with the first of two rules created; the next one creates the other and owns both."""
    before = ground.state()
    arguments = ground.prepared(HOST.module("m365.create_inbox_rules"))
    there = ground.state()
    attempt = Attempt(ground, "m365.create_inbox_rules", arguments)
    stop = threading.Event()
    ground.faults.plug = (stop, "after")
    with pytest.raises(InterruptedWork):
        attempt.go(stop)
    assert ground.state() != there

    outcome = attempt.go()

    known = attempt.journal()
    assert known is not None
    assert outcome.result is not None
    assert len(outcome.result["created"]) == len(arguments["rules"]) == 2
    assert outcome.result["skipped"] == []
    back = inverse(attempt.uses, arguments, known.before, outcome.result)
    assert Attempt(ground, "m365.delete_inbox_rules", back).go().status == "succeeded"
    assert ground.state() == there != before


def test_a_change_after_a_stop_does_not_hide_what_was_removed_before_it(ground: Ground) -> None:
    """Renamed while the next process waits for its first write: an undo still knows the first rule."""
    arguments = ground.prepared(HOST.module("m365.delete_inbox_rules"))
    user_id = arguments["user_id"]
    attempt = Attempt(ground, "m365.delete_inbox_rules", arguments)
    stop = threading.Event()
    ground.faults.plug = (stop, "after")
    with pytest.raises(InterruptedWork):
        attempt.go(stop)
    renamed = {**ground.tenant.users[user_id], "userPrincipalName": "renamed@contoso.example"}
    attempt.meanwhile = lambda: ground.tenant.objects["user"].put(user_id, renamed)

    outcome = attempt.go()

    assert outcome.status == "succeeded", outcome.error
    known = attempt.journal()
    assert known is not None
    back = inverse(attempt.uses, arguments, known.before, outcome.result)
    assert len(back["rules"]) == len(arguments["rule_ids"]) == 2


def test_detected_risk_that_was_dismissed_is_not_called_unchanged(ground: Ground) -> None:
    """Nobody can say it again, and it was there: that is no "nothing to take back"."""
    at_risk = next(one for one in ground.tenant.objects["riskyUser"].values() if one["riskState"] == "atRisk")
    attempt = Attempt(ground, "m365.dismiss_risk", {"user_id": at_risk["id"]})
    assert attempt.go().status == "succeeded"
    known = attempt.journal()
    assert known is not None

    module, why = way_back(attempt.action(), known.before)
    (prospect,) = prospects(HOST, [known])

    assert module is None
    assert why == "it cannot be taken back: risk that was detected comes back with a new detection only"
    assert (prospect.inverse, prospect.stands) == (None, True)


def test_a_role_is_taken_back_only_where_it_was_given(ground: Ground) -> None:
    """Somebody else gave the same role for one unit: that is theirs, and stays."""
    given = {"user_id": example("m365.block_sign_in", ground.tenant).arguments["user_id"]}
    given["role"] = "User Administrator"
    theirs = {**given, "scopes": ["/administrativeUnits/theirs"]}
    assert Attempt(ground, "m365.add_to_role", theirs).go().status == "succeeded"
    before = ground.state()
    ours = Attempt(ground, "m365.add_to_role", given)
    outcome = ours.go()
    known = ours.journal()
    assert known is not None
    assert outcome.result is not None
    assert ground.state() != before

    back = inverse(ours.uses, given, known.before, outcome.result)
    assert Attempt(ground, "m365.remove_from_role", back).go().status == "succeeded"

    assert ground.state() == before


@every_action
def test_a_rate_limit_is_waited_out(info: ModuleInfo, attempt: Attempt) -> None:
    """Answers of 429, with a time to wait, are no failures."""
    busy = Fault(service="graph", status=429, body=BUSY, headers=(("Retry-After", "0"),), times=2)
    attempt.ground.faults.add(busy)

    outcome = attempt.go()

    assert outcome.status == "succeeded", outcome.error
    assert attempt.ground.faults.report()[0]["used"] == 2


@every_effect
def test_a_refused_write_changes_nothing_and_says_what_is_missing(info: ModuleInfo, attempt: Attempt) -> None:
    """403 is a failure that names the permission to grant, or the role that the app's principal lacks."""
    before = attempt.ground.state()
    for method in ("POST", "PATCH", "DELETE"):
        attempt.ground.faults.add(Fault(service="graph", method=method, status=403, body=DENIED))

    outcome = attempt.go()

    assert outcome.status == "failed"
    assert outcome.effect == "failed"
    assert "403" in (outcome.error or "")
    assert any(word in str(outcome.error) for word in ("grant the ", "service principal"))
    assert attempt.ground.state() == before


@every_action
def test_a_refused_read_says_which_permission_is_missing(info: ModuleInfo, attempt: Attempt) -> None:
    """Nothing is taken for empty because it could not be read."""
    method = "POST" if "hunting" in info.uses else "GET"
    attempt.ground.faults.add(Fault(service="graph", method=method, status=403, body=DENIED))

    outcome = attempt.go()

    assert outcome.status == "failed"
    assert outcome.effect is None
    assert "grant the " in str(outcome.error)
    assert attempt.ground.faults.writes == []


@every_action
def test_what_does_not_exist_is_named(info: ModuleInfo, attempt: Attempt) -> None:
    """An object that is gone is told by the name that the arguments give, and nothing else is changed."""
    given = nowhere(info.uses, attempt.arguments)
    if given == attempt.arguments:
        pytest.skip("it is about no object")
    before = attempt.ground.state()

    outcome = Attempt(attempt.ground, info.uses, given).go()

    assert outcome.status == "failed", outcome.result
    assert NOWHERE in str(outcome.error)
    assert attempt.ground.state() == before


@every_effect
def test_read_only_mode_refuses_it(info: ModuleInfo, attempt: Attempt) -> None:
    """`guardrails.read_only` lets nothing out."""
    attempt.guardrails = {"read_only": True}

    outcome = attempt.go()

    assert outcome.status == "failed"
    assert outcome.effect == "refused"
    assert attempt.ground.faults.writes == []


@every_effect
def test_what_somebody_did_meanwhile_is_theirs(info: ModuleInfo, attempt: Attempt) -> None:
    """The same was done between the look and the write: it is not done twice, and no undo takes it back."""
    ground = attempt.ground
    theirs: list[dict[str, Any]] = []

    def somebody() -> None:
        assert Attempt(ground, info.uses, attempt.arguments).go().status == "succeeded"
        theirs.append(ground.state())

    attempt.meanwhile = somebody
    outcome = attempt.go()

    assert outcome.status == "succeeded", outcome.error
    fits(info, outcome.result)
    (left,) = theirs
    if info.uses not in NOT_IDEMPOTENT:
        assert ground.state() == left
    effect = attempt.journal()
    assert effect is not None
    back = attempt.action().inverse(effect.before, outcome.result or {})
    assert back is None, "an undo would take back what somebody else did"


@pytest.mark.parametrize(
    "info", [one for one in EFFECTS if one.uses in OTHERWISE], ids=lambda info: info.uses
)
@pytest.mark.parametrize("failed_before", [False, True], ids=["while it waited", "between two attempts"])
def test_another_change_meanwhile_is_what_an_undo_goes_back_to(
    info: ModuleInfo, attempt: Attempt, failed_before: bool
) -> None:
    """The effect is made on what is there by then, and its undo leaves what somebody else changed.

    Targets of the other actions can only be as they are, or as they are to be.
    """
    ground = attempt.ground
    theirs: list[dict[str, Any]] = []

    def somebody() -> None:
        OTHERWISE[info.uses](ground.tenant, attempt.arguments)
        theirs.append(ground.state())

    if failed_before:
        for method in ("PATCH", "POST", "DELETE"):
            ground.faults.add(Fault(service="graph", method=method, status=403, body=DENIED))
        assert attempt.go().effect == "failed"
        ground.faults.clear()
        somebody()
    else:
        attempt.meanwhile = somebody
    outcome = attempt.go()

    assert outcome.status == "succeeded", outcome.error
    effect = attempt.journal()
    assert effect is not None
    back = attempt.action().inverse(effect.before, outcome.result or {})
    assert back is not None
    assert Attempt(ground, back.uses, back.arguments).go().status == "succeeded"
    (left,) = theirs
    assert comparable(info.uses, ground.state()) == comparable(info.uses, left)


@every_effect
def test_a_target_that_is_gone_meanwhile_is_not_written_to(info: ModuleInfo, attempt: Attempt) -> None:
    """Somebody deleted it between the look and the write: the outcome says so, and nothing is sent."""
    if info.uses in OUTLIVES_ITS_USER:
        pytest.skip(OUTLIVES_ITS_USER[info.uses])
    ground = attempt.ground
    attempt.meanwhile = lambda: remove_target(ground.tenant, attempt.arguments)

    outcome = attempt.go()

    assert outcome.status == "failed", outcome.result
    assert outcome.effect == "failed"
    assert any(word in str(outcome.error) for word in ("no user", "not exist", "there is no", "unknown"))
    assert ground.faults.writes == []


@every_effect
def test_a_change_in_between_is_noticed(info: ModuleInfo, attempt: Attempt) -> None:
    """Somebody puts it back by hand: looking again tells, unless the effect leaves nothing to look at."""
    outcome = attempt.go()
    assert outcome.status == "succeeded", outcome.error
    effect = attempt.journal()
    assert effect is not None
    attempt.ground.restore()
    attempt.ground.prepared(info)

    with Watched(attempt.ground.connection, attempts=2, backoff=0) as http:
        context = StepContext(http=http, connection=attempt.ground.connection)
        held = attempt.action().verify(context, effect.before, effect.result or {})

    assert held is False


def test_every_exception_is_about_an_action_that_exists() -> None:
    """The registry is not empty, and no exception outlives its action."""
    known = {info.uses for info in EFFECTS}
    assert "m365.block_sign_in" in known
    assert set(NOT_IDEMPOTENT) <= known
