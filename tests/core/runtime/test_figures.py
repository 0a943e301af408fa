"""The counts and notices of one invocation."""

from counterplay.runtime.figures import Figures


def test_notices_are_bounded_and_the_latest_stay() -> None:
    """A feed with endless poison fills no memory; what is told again and again is not the first to go."""
    figures = Figures()
    for number in range(10_000):
        figures.notice(f"unit {number}", "cannot be read")
        figures.notice("contoso", f"blocked {number}")
    assert len(figures.notices) == 500
    assert figures.notices["contoso"] == "blocked 9999"
    figures.notice("contoso", None)
    assert "contoso" not in figures.notices
