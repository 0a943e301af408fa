"""A unit that does not come is compared with others: is it the unit, or the source as a whole?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from counterplay.runtime.blame import SEVERAL, Blame, Fault

START = datetime(2026, 3, 2, 8, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
def blame() -> Blame:
    return Blame()


def test_a_unit_that_fails_while_another_is_given_is_at_fault(blame: Blame) -> None:
    """Also when the other was given before the first failure was known, and when nothing comes later."""
    blame.given(2, at(1))
    assert blame.of(1, at(0), others=False) is Fault.UNIT
    assert blame.of(1, at(60), others=False) is Fault.UNIT
    assert (blame.owed(1), blame.alone(1)) == (0, 0)


def test_a_first_failure_counts_once_others_were_given(blame: Blame) -> None:
    """Nobody could tell when it happened; a later one needs no such debt."""
    assert blame.of(1, at(0), others=True) is Fault.OPEN
    blame.given(2, at(1))
    assert blame.of(1, at(2), others=False) is Fault.UNIT
    assert blame.owed(1) == 1


def test_several_that_fail_without_one_that_is_given_are_an_outage(blame: Blame) -> None:
    """The same unit again and again is not several, and what was on its way when it began is not blamed."""
    blame.given(99, at(0.5))
    for attempt in range(SEVERAL):
        assert blame.of(0, at(attempt), others=True) is Fault.UNIT
    found = [blame.of(unit, at(10), others=True) for unit in range(1, SEVERAL + 1)]
    assert found == [Fault.OPEN] * (SEVERAL - 2) + [Fault.SOURCE] * 2
    assert blame.of(0, at(11), others=True) is Fault.SOURCE
    assert blame.owed(SEVERAL) == 0


def test_bad_units_that_are_left_over_are_at_fault_however_many_they_are(blame: Blame) -> None:
    """All of them failed while others were given, and there is nothing else to compare them with."""
    blame.given(99, at(5))
    assert {blame.of(unit, at(1), others=False) for unit in range(3 * SEVERAL)} == {Fault.UNIT}


def test_a_unit_alone_waits_and_its_attempts_are_counted_apart(blame: Blame) -> None:
    """It is the source until another unit comes; once that was given, it is the unit."""
    for _ in range(5):
        assert blame.of(1, at(0), others=False) is Fault.SOURCE
    assert blame.alone(1) == 5
    blame.given(2, at(9))
    assert blame.of(1, at(10), others=False) is Fault.UNIT
    assert blame.owed(1) == 1


@pytest.mark.parametrize("how", ["given", "set_aside"])
def test_a_unit_that_came_or_is_not_asked_for_any_more_is_judged_anew(blame: Blame, how: str) -> None:
    """What it did before is not held against it."""
    assert blame.of(1, at(0), others=True) is Fault.OPEN
    if how == "given":
        blame.given(1, at(1))
    else:
        blame.set_aside(1)
    assert (blame.owed(1), blame.alone(1)) == (0, 0)
    assert blame.of(1, at(5), others=True) is Fault.OPEN
