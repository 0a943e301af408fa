"""The pace of requests: a service that counts them in a sliding minute is never asked too often."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.budgets import Budget, Budgets, ByteBudget, Limit, Slots


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def drain(budget: Budget, clock: Clock, requests: int, urgent: bool = False) -> list[float]:
    """Start requests as fast as the budget lets; when each was started."""
    started = []
    while len(started) < requests:
        wait = budget.take(urgent=urgent)
        if wait:
            clock.now += wait
        else:
            started.append(clock.now)
    return started


def busiest(started: list[float]) -> int:
    """The most requests within any sixty seconds."""
    window: deque[float] = deque()
    most = 0
    for moment in started:
        window.append(moment)
        while window[0] <= moment - 60.0:
            window.popleft()
        most = max(most, len(window))
    return most


def test_a_backlog_goes_at_the_pace_of_the_quota() -> None:
    """10,000 requests at 2,000 a minute: never more in any minute, and within 2 % of the limit."""
    clock = Clock()
    started = drain(Budget(2000, clock), clock, 10_000)
    assert busiest(started) <= 2000
    assert started[-1] - started[0] <= 10_000 / 2000 * 60 * 1.02


@settings(deadline=None, max_examples=30)
@given(
    limit=st.integers(12, 500),
    pauses=st.lists(st.floats(0, 90), max_size=5),
    urgent=st.lists(st.booleans(), min_size=1, max_size=7),
)
def test_no_minute_holds_more_than_the_limit(limit: int, pauses: list[float], urgent: list[bool]) -> None:
    """Whatever rests come in between, and however urgent requests are mixed in."""
    clock = Clock()
    budget = Budget(limit, clock)
    started: list[float] = []
    for place in range(3 * limit):
        if pauses and place % (limit // 2) == 0:
            clock.now += pauses.pop()
        started += drain(budget, clock, 1, urgent[place % len(urgent)])
    assert busiest(started) <= limit


def test_urgent_requests_find_room_when_the_others_took_theirs() -> None:
    """A listing does not wait behind a back-fill."""
    clock = Clock()
    budget = Budget(1000, clock)
    drain(budget, clock, 985)
    assert budget.take(urgent=False) > 0
    assert budget.take(urgent=True) == 0.0


def test_a_refusal_slows_everybody_down_and_passes() -> None:
    """The pause holds, refusals of the same moment count once, and the old pace comes back."""
    clock = Clock()
    budget = Budget(2000, clock)
    for _ in range(20):
        budget.refused(3.0)
    assert budget.take() == 3.0
    assert budget.limit == 1400
    assert budget.refusals == 20
    clock.now += 600
    assert budget.take() == 0.0
    assert budget.limit == 2000


def test_a_service_without_a_known_limit_is_paced_by_what_it_refused() -> None:
    """Two thirds of what it was asked when it refused; after ten quiet minutes nothing holds it back."""
    clock = Clock()
    budget = Budget(None, clock)
    assert len(drain(budget, clock, 300)) == 300
    budget.refused(1.0)
    assert budget.limit == 210
    clock.now += 601
    assert budget.take() == 0.0
    assert budget.limit is None


def test_bytes_are_held_within_the_budget_and_a_large_one_goes_alone() -> None:
    """What is larger than the whole budget waits until nothing else is held."""
    held = ByteBudget(100)
    assert held.take(60)
    assert not held.take(50)
    assert held.take(40)
    held.change(-100)
    assert held.take(1000)
    assert not held.take(1)


def test_a_limit_of_a_second_is_kept(clock: Clock) -> None:
    """One request a second: whoever comes at once waits until the first one left the window."""
    budget = Budget(1, clock, window=1.0)
    assert budget.take() == 0.0

    wait = budget.take()

    assert 1.0 < wait < 1.5
    clock.now += wait
    assert budget.take() == 0.0


def test_units_count_by_their_cost(clock: Clock) -> None:
    """Ten units are five requests of two."""
    budget = Budget(10, clock, window=10.0)

    assert [budget.take(cost=2) for _ in range(5)] == [0.0] * 5
    assert budget.take(cost=2) > 0.0
    assert budget.used == 10


def test_a_request_that_costs_more_than_the_limit_goes_alone(clock: Clock) -> None:
    """It could never begin otherwise."""
    assert Budget(1, clock, window=10.0).take(cost=3) == 0.0


def test_none_of_those_who_share_a_limit_uses_it_up(clock: Clock) -> None:
    """A busy tenant has what nobody wants, and the others their part as soon as they come."""
    budget = Budget(100, clock, window=10.0)
    alone = 0
    while budget.take(share="busy") == 0.0:
        alone += 1
    assert alone == 100
    clock.now += 20

    assert budget.take(share="quiet") == 0.0
    busy = 0
    while budget.take(share="busy") == 0.0:
        busy += 1

    assert busy == 50
    assert [budget.take(share="quiet") for _ in range(49)] == [0.0] * 49


def test_a_refusal_never_cuts_a_limit_to_nothing(clock: Clock) -> None:
    """After the pause at least one request fits."""
    budget = Budget(1, clock, window=1.0)
    budget.take()
    budget.refused(3.0)
    assert budget.take() == pytest.approx(3.0)
    clock.now += 3.0

    assert budget.take() == 0.0


def test_slots_are_taken_and_given_back() -> None:
    """So many are under way at once, for each name."""
    slots = Slots()

    assert [slots.enter("ana", 2, 0.0) for _ in range(3)] == [True, True, False]
    assert slots.enter("bo", 2, 0.0)
    slots.leave("ana")
    assert slots.enter("ana", 2, 0.0)


def test_limits_that_nobody_uses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be one for each mailbox of a large tenant; services keep theirs."""
    budgets = Budgets()
    first = budgets.of_limit(Limit("mailbox ana", 10, 600))
    service = budgets.of("contoso@https://graph.microsoft.com")
    budgets._pruned -= 100

    budgets.of_limit(Limit("mailbox bo", 10, 600))

    assert budgets.of_limit(Limit("mailbox ana", 10, 600)) is not first
    assert budgets.of("contoso@https://graph.microsoft.com") is service
