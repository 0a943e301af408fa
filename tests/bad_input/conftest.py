"""A simulated tenant in this process, and a desk that is connected to it with secrets by reference."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from counterplay_sim.testing import Simulator


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Simulator]:
    """A small tenant: some two hundred audit events, six alerts."""
    with Simulator(tmp_path / "tenant", events=150) as running:
        yield running


@pytest.fixture
def connect(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write `counterplay.yaml` for a tenant, its two secrets in the environment."""

    def connect(tenant: Simulator, *, client_secret: str = "", intake_key: str = "", **changed: Any) -> None:
        m365, intake = tenant.m365_settings(), tenant.intake_settings()
        monkeypatch.setenv("CONTOSO_SECRET", client_secret or m365["client_secret"])
        monkeypatch.setenv("INTAKE_KEY", intake_key or intake["intake_key"])
        m365 |= {"client_secret": "${env:CONTOSO_SECRET}", **changed}
        intake |= {"intake_key": "${env:INTAKE_KEY}"}
        lines = ["connections:"]
        for name, uses, settings in (("contoso", "m365.tenant", m365), ("siem", "intake.key", intake)):
            lines += [f"  {name}:", f"    uses: {uses}", "    labels: [customer]"]
            lines += [f"    {key}: {str(value).lower() if value is False else value}"
                      for key, value in settings.items()]  # fmt: skip
        desk.write("counterplay.yaml", "\n".join(lines) + "\n")

    return connect


@pytest.fixture
def tampered(tmp_path: Path) -> Callable[[str, Callable[[bytes], bytes]], str]:
    """Change the bytes of the first event of a content type, while no simulator runs; gives its `Id`."""

    def tampered(content_type: str, change: Callable[[bytes], bytes]) -> str:
        database = sqlite3.connect(tmp_path / "tenant" / "sim" / "sim.db")
        try:
            number, event, body = database.execute(
                "SELECT rowid, event, body FROM entry WHERE content_type = ? AND event NOT IN"
                " (SELECT event FROM entry GROUP BY event HAVING count(*) > 1) ORDER BY ingested",
                (content_type,),
            ).fetchone()
            database.execute("UPDATE entry SET body = ? WHERE rowid = ?", (change(bytes(body)), number))
            database.commit()
        finally:
            database.close()
        return str(event)

    return tampered
