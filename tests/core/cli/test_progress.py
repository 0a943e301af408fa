"""The line that people see while a session works."""

import pytest

from counterplay.cli.progress import print_summary, status_line
from counterplay.runtime.figures import Figures
from counterplay.runtime.session import Ended
from counterplay.runtime.standing import Standing, standing


def test_the_line_tells_lag_quota_and_what_is_wrong() -> None:
    """Counts of what is rare stand there when there are any."""
    figures = Figures()
    for name, count in {
        "collected": 1200,
        "units": 12,
        "delivered": 1100,
        "duplicates": 90,
        "gaps": 1,
    }.items():
        figures.add(name, count)
    told = status_line("collect", figures, Standing(backlog=3, lag=0.71, used=448, limit=2000.0, throttles=2))
    assert told == (
        "collect: 1,200 events in 12 units, 1,100 delivered, 3 units to do, 90 dropped as known, 1 gap, "
        "throttled 2 x, lag 0.7 s, 448 of 2,000 requests a minute"
    )


def test_without_a_source_the_line_is_short() -> None:
    """A session of runs only has no quota and no lag."""
    from counterplay.budgets import Budgets

    figures = Figures()
    figures.add("runs", 2)
    figures.add("runs_failed")
    told = status_line("answer", figures, standing([], Budgets()))
    assert told == "answer: 0 events in 0 units, 0 delivered, 1 of 2 runs ended"


def test_the_line_says_for_whom_it_waits() -> None:
    """One source by its name, several by their number; and units that were fetched again are told apart."""
    figures = Figures()
    figures.add("units_again", 2)
    waits = ("m365.audit_log contoso DLP.All", "m365.alerts contoso", "m365.risky_users contoso")
    told = [status_line("collect", figures, Standing(3, 0.0, 0, None, 0, waits[:end])) for end in (1, 3)]
    begin = "collect: 0 events in 0 units, 0 delivered, 2 units fetched again, 3 units to do, waiting for "
    assert told == [
        f"{begin}m365.audit_log contoso DLP.All to answer",
        f"{begin}m365.audit_log contoso DLP.All and 2 other sources to answer",
    ]


def test_the_quota_that_is_nearest_to_its_end_is_told() -> None:
    """Of several services, one that has no known limit among them."""
    from counterplay.budgets import Budgets

    budgets = Budgets()
    for service, limit, requests in (("a", 1000.0, 2), ("b", 100.0, 1), ("c", None, 9)):
        for _ in range(requests):
            budgets.of(service, limit).take()
    budgets.of("a").refused(1.0)
    found = standing([], budgets)
    assert (found.used, found.limit, found.throttles) == (1, 100.0, 1)


def test_the_summary_tells_what_was_fetched_again_from_what_was_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A playbook that catches up delivers what was collected before, perhaps for another one."""
    figures = {"collected_again": 407, "units_again": 202, "delivered": 400}
    print_summary("two", Ended(0, figures, {}, {"waiting": []}, {}, (), 1.2), str)
    assert capsys.readouterr().out.splitlines() == [
        "two: done in 1.2 s",
        "  collected    0 events in 0 units",
        "  caught up    407 events in 202 units that had been collected before",
        "  delivered    400 records",
    ]
