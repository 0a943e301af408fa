"""Who somebody is, for the records."""

import pytest

from counterplay.people import this_person


def test_behind_sudo_a_person_is_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people who both become the service's user are two people."""
    monkeypatch.setenv("LOGNAME", "counterplay")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert this_person.__wrapped__().startswith("counterplay@")
    monkeypatch.setenv("SUDO_USER", "ada")
    assert this_person.__wrapped__().startswith("ada@")
