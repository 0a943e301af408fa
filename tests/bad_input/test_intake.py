"""An intake that refuses, throttles, fails or talks nonsense: told plainly, and nothing is lost."""

from collections.abc import Callable
from typing import Any

import pytest

from counterplay_sim.testing import Simulator

FORWARD = ("run", "alerts-to-intake", "--once", "--json")


def everything_arrived(tenant: Simulator) -> bool:
    """All alerts are at the intake, each of them once."""
    verdict = tenant.oracle().verdict()
    return verdict.alerts_arrived == verdict.alerts_offered > 0 and not verdict.alerts_duplicated


@pytest.fixture
def place(tenant: Simulator) -> str:
    """How messages name the intake."""
    return f"the intake {tenant.url('intake').removeprefix('https://')}"


@pytest.fixture
def no_leaks(desk: Any, tenant: Simulator) -> Callable[[], None]:
    """Fails when one of the two secrets stands anywhere in clear."""

    def no_leaks() -> None:
        for secret in (tenant.tenant.client_secret, tenant.tenant.intake_key):
            assert desk.leaks(secret) == []

    return no_leaks


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_blocks_the_playbook_until_it_is_right(
    desk: Any, tenant: Simulator, connect: Any, place: str, no_leaks: Any, status: int
) -> None:
    """Exit code 3 and the setting to look at; what was held back arrives once with the next good run."""
    connect(tenant)
    tenant.faults.add({"service": "intake", "status": status, "body": '{"error": "no"}'})

    said = desk.playbook(*FORWARD)
    tenant.faults.clear()
    good = desk.playbook(*FORWARD)

    assert said.code == 3
    assert said.data["notices"] == [
        f"alerts-to-intake: blocked: {place} answered {status}: the intake key is refused; check "
        "`intake_key`; its events are held back"
    ]
    assert "delivered" not in said.data["figures"]
    assert good.code == 0
    assert everything_arrived(tenant)
    no_leaks()


def test_a_wrong_key_is_told_the_same_way(desk: Any, tenant: Simulator, connect: Any, place: str) -> None:
    """The real refusal of the intake, not an injected one; the wrong key is shown nowhere either."""
    wrong = "wrong-key-of-the-intake-0815"
    connect(tenant, intake_key=wrong)

    said = desk.playbook("run", "alerts-to-intake", "--once")
    connect(tenant)
    good = desk.playbook(*FORWARD)

    assert said.code == 3
    assert said.out.splitlines()[0].startswith("alerts-to-intake: waiting or blocked in ")
    assert said.out.splitlines()[-1] == (
        f"  ! alerts-to-intake: blocked: {place} answered 403: the intake key is refused; check "
        "`intake_key`; its events are held back"
    )
    assert good.code == 0
    assert everything_arrived(tenant)
    assert desk.leaks(wrong) == []


def test_a_batch_that_is_too_large_is_halved_until_it_fits(
    desk: Any, tenant: Simulator, connect: Any, no_leaks: Any
) -> None:
    """One 413 for a batch costs nothing but a second request."""
    connect(tenant)
    tenant.faults.add({"service": "intake", "status": 413, "times": 1})

    said = desk.playbook(*FORWARD)

    assert said.code == 0
    assert said.data["notices"] == []
    assert everything_arrived(tenant)
    no_leaks()


@pytest.mark.parametrize("status", [400, 413])
def test_a_record_that_is_refused_alone_becomes_a_dead_letter(
    desk: Any, tenant: Simulator, connect: Any, place: str, no_leaks: Any, status: int
) -> None:
    """Halving goes down to the one record; it is kept and told of, the others arrive, and only once."""
    connect(tenant)
    tenant.faults.add({"service": "intake", "status": status, "nth": [1, 2, 3]})  # 6, then 3, then 1 alerts

    said = desk.playbook(*FORWARD)
    again = desk.playbook(*FORWARD)
    verdict = tenant.oracle().verdict()

    assert said.code == 1
    assert said.data["figures"]["dead_letters"] == 1
    assert said.data["figures"]["delivered"] == verdict.alerts_offered - 1 == verdict.alerts_arrived
    assert not verdict.alerts_duplicated
    [notice] = said.data["notices"]
    assert notice.endswith(
        " 0: a record of alerts-to-intake could not be delivered and is kept as a dead letter: "
        f"{place} answered {status}"
    )
    assert (again.code, again.data["figures"].get("delivered", 0)) == (0, 0)
    no_leaks()


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "times": 3, "headers": {"Retry-After": "0"}},
        {"status": 500, "times": 2, "headers": {"Retry-After": "0"}},
        {"status": 503, "times": 2, "body": "<html>busy</html>", "headers": {"Retry-After": "0"}},
        {"status": 503, "times": 5, "headers": {"Retry-After": "0"}},
    ],
)
def test_a_passing_fault_is_waited_out(
    desk: Any, tenant: Simulator, connect: Any, no_leaks: Any, fault: dict[str, Any]
) -> None:
    """A rate limit and a server's fault are tried again until everything has arrived."""
    connect(tenant)
    tenant.faults.add({"service": "intake", **fault})

    said = desk.playbook(*FORWARD)

    assert said.code == 0
    assert said.data["notices"] == []
    assert everything_arrived(tenant)
    no_leaks()


def test_html_instead_of_receipts_is_no_delivery(
    desk: Any, tenant: Simulator, connect: Any, place: str, no_leaks: Any
) -> None:
    """A portal that answers 200 with a page is told of and tried again: only receipts prove a delivery."""
    connect(tenant)
    html = {"status": 200, "body": "<html>Sign in</html>", "headers": {"Content-Type": "text/html"}}
    tenant.faults.add({"service": "intake", "times": 1, **html})

    said = desk.playbook(*FORWARD)

    assert said.code == 0
    assert said.err.startswith(
        f"alerts-to-intake: waiting: {place} answered 200 with something that is not JSON ("
    )
    assert said.err.endswith("); its events are held back\n")
    assert everything_arrived(tenant)
    no_leaks()
