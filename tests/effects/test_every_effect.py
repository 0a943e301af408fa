"""What holds for every action that changes something, of every plugin that is registered."""

from typing import Any

import pytest
from tests.fixtures.m365_actions import comparable, empower, example, inverse

from counterplay import Action
from counterplay.plugins import ModuleInfo, PluginHost
from counterplay.runtime.planning import way_back

HOST = PluginHost.load()
EFFECTS = sorted(
    (info for info in HOST.modules.values() if issubclass(info.cls, Action) and info.cls.effect),
    key=lambda info: info.uses,
)
every = pytest.mark.parametrize("info", EFFECTS, ids=lambda info: info.uses)


def arguments(info: ModuleInfo, bench: Any, receiver: Any) -> dict[str, Any]:
    """Arguments with which the action has something to do; what has to be done before is done."""
    if info.uses == "std.http":
        return {"url": f"{receiver.url}/hook", "method": "POST", "json": {"a": 1}}
    (tenant,) = bench.simulator._tenants.values()
    empower(tenant)
    found = example(info.uses, tenant)
    if found.first is None:
        return found.arguments
    uses, given = found.first
    bench.write(step(HOST.modules[uses], given), name="first")
    assert bench.run("first").exit_code == 0, bench.runs()[0].error
    (effect,) = bench.effects(bench.runs()[0])
    return inverse(uses, given, effect.before, effect.result)


def step(info: ModuleInfo, given: dict[str, Any]) -> dict[str, Any]:
    """A step that uses the action."""
    connection = {"connection": "contoso"} if info.cls.connection == "m365.tenant" else {}
    return {"id": "act", "uses": info.uses, "with": given, **connection}


@every
def test_a_plan_sends_nothing_and_says_what_the_run_then_sends(
    info: ModuleInfo, bench: Any, receiver: Any
) -> None:
    """The tenant's digest stays, no write reaches any wire, and the run sends just what was listed."""
    given = arguments(info, bench, receiver)
    bench.write(step(info, given))
    before, sent = bench.digest(), list(bench.writes)

    plan = bench.plan()

    assert bench.digest() == before
    assert bench.writes == sent
    assert receiver.seen == []
    (planned,) = plan["steps"]
    assert planned["does"] == "changes"
    assert planned["complete"] is True
    assert planned["calls"], "the example changes nothing, so it shows nothing"
    assert planned["conditions"] == []
    if info.cls.connection is not None:
        assert planned["permissions"]

    assert bench.run().exit_code == 0, bench.runs()[0].error
    (effect,) = bench.effects(bench.runs()[0])
    assert effect.calls == planned["calls"]
    arrived = [*bench.writes[len(sent) :], *((method, path) for method, path, _ in receiver.seen)]
    assert [(call["method"], "/" + call["url"].split("/", 3)[3]) for call in planned["calls"]] == arrived


@every
def test_undo_brings_the_tenant_back(info: ModuleInfo, bench: Any, receiver: Any) -> None:
    """For each action that says that it can be taken back, the digest after the undo is the one before."""
    given = arguments(info, bench, receiver)
    bench.write(step(info, given))
    before, first = bench.digest(), bench.state()
    assert bench.run().exit_code == 0, bench.runs()[0].error
    run = bench.runs()[0]
    assert bench.digest() != before or info.cls.connection is None
    (effect,) = bench.effects(run)
    action = info.cls(effect.arguments)
    assert isinstance(action, Action)
    undoable, why = way_back(action, effect.before, effect.result)

    result = bench.call("undo", run.id)

    if undoable is None:
        assert why == "it cannot be taken back"
        assert result.exit_code == 1
        assert f"{info.uses} cannot be taken back" in result.stdout
    else:
        assert result.exit_code == 0, result.stdout
        assert "taken back" in result.stdout
        assert comparable(info.uses, bench.state()) == comparable(info.uses, first)
