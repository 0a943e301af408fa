"""Defender for Endpoint's machine actions, with a token of their own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

Ask = Callable[..., Any]


@pytest.fixture
def ask(simulator: Any, client: Any) -> Ask:
    """One request to the service, with every permission of the application."""
    simulator.tenant.grants["defender"] = ["Machine.Isolate", "Machine.Read.All"]
    base = f"{client.tenant['graph_url']}/defender"

    def asked(method: str, path: str, body: Any = None, **query: str) -> Any:
        token = client.token(base).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return client.session.request(method, f"{base}/api/{path}", json=body, params=query, headers=headers)

    return asked


def _machines(simulator: Any, offline: bool) -> str:
    return next(k for k, one in simulator.tenant.objects["machine"].items() if one["@sim.offline"] is offline)


def test_a_machine_is_found_isolated_and_released(simulator: Any, ask: Ask, clock: Any) -> None:
    """201 with a pending action; it proceeds and succeeds; releasing is another one."""
    key = _machines(simulator, offline=False)
    name = simulator.tenant.objects["machine"][key]["computerDnsName"]
    found = ask("GET", "machines", **{"$filter": f"computerDnsName eq '{name}'"}).json()["value"]
    assert [one["id"] for one in found] == [key]
    assert "@sim" not in str(found)

    made = ask("POST", f"machines/{key}/isolate", {"Comment": "ticket 7", "IsolationType": "Full"})

    assert (made.status_code, made.json()["status"], made.json()["type"]) == (201, "Pending", "Isolate")
    path = f"machineactions/{made.json()['id']}"
    again = ask("POST", f"machines/{key}/isolate", {"Comment": "ticket 7"})
    assert (again.status_code, again.json()["error"]["code"]) == (400, "ActiveRequestAlreadyExists")
    seen = []
    for wait in (0, 15, 30):
        clock.advance(timedelta(seconds=wait))
        seen.append(ask("GET", path).json()["status"])
    assert seen == ["Pending", "InProgress", "Succeeded"]
    assert ask("POST", f"machines/{key}/unisolate", {"Comment": "done"}).status_code == 201


def test_a_machine_that_is_offline_stays_pending_until_it_is_cancelled(
    simulator: Any, ask: Ask, clock: Any
) -> None:
    """For days, if need be."""
    key = _machines(simulator, offline=True)
    action = ask("POST", f"machines/{key}/isolate", {"Comment": "x"}).json()["id"]

    clock.advance(timedelta(minutes=50))

    assert ask("GET", f"machineactions/{action}").json()["status"] == "Pending"
    assert ask("POST", f"machineactions/{action}/cancel", {"Comment": "no"}).json()["status"] == "Cancelled"
    assert ask("POST", f"machineactions/{action}/cancel", {"Comment": "no"}).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("machines/{m}/isolate", {}, 400, "MissingRequiredParameter"),
        ("machines/{m}/isolate", {"comment": "x"}, 400, "InvalidRequestBody"),
        ("machines/{m}/isolate", {"Comment": "x", "IsolationType": "full"}, 400, "InvalidRequestBody"),
        ("machines/nothing/isolate", {"Comment": "x"}, 404, "ResourceNotFound"),
        ("machineactions/nothing/cancel", {"Comment": "x"}, 404, "ResourceNotFound"),
        ("nothing", {}, 404, "ResourceNotFound"),
    ],
)
def test_errors_have_their_own_shape(
    simulator: Any, ask: Ask, path: str, body: Any, status: int, code: str
) -> None:
    """Code, message and a trace id as `target`."""
    answer = ask("POST", path.replace("{m}", _machines(simulator, offline=False)), body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"code", "message", "target"}


def test_it_needs_its_own_token_permission_and_licence(simulator: Any, client: Any, ask: Ask) -> None:
    """A token of Graph is of no use here, nor one without the role."""
    key = _machines(simulator, offline=False)
    assert client.graph("GET", f"{client.tenant['graph_url']}/defender/api/machines").status_code == 401
    simulator.tenant.grants["defender"] = ["Machine.Read.All"]
    assert ask("POST", f"machines/{key}/isolate", {"Comment": "x"}).status_code == 403
    simulator.tenant.licence = "p2"
    assert ask("GET", "machines").status_code == 403
