"""The bench of the bundled plugins: a simulated tenant with its intake, and a service that takes anything."""

from __future__ import annotations

import threading
from collections.abc import Generator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from counterplay.testing import Bench, Example
from counterplay_sim.digest import digest
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Simulator, Strictness

NOW = timedelta(0)


class Receiver(ThreadingHTTPServer):
    """An HTTP service on loopback that takes whatever is posted, and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert isinstance(self.server, Receiver)
        self.server.seen.append((self.command, self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Tests print nothing."""


class Accounts:
    """The accounts of a simulated tenant that an application may change."""

    def __init__(self, simulator: Simulator) -> None:
        (self.tenant,) = simulator._tenants.values()

    def plain(self) -> list[dict[str, Any]]:
        """No administrator's, and not synced from elsewhere."""
        held = {one["principalId"] for one in self.tenant.objects["roleAssignment"].values()}
        for group in self.tenant.objects["group"].values():
            if group.get("isAssignableToRole"):
                held |= set(group.get("@sim.members", ()))
        return [
            one
            for key, one in self.tenant.users.items()
            if key not in held and not one.get("onPremisesSyncEnabled")
        ]

    def rules(self, user: dict[str, Any]) -> list[dict[str, Any]]:
        """The inbox rules of an account that Graph can change."""
        rules = self.tenant.rules[user["id"]]
        return [rule for rule in rules if not rule["isReadOnly"] and rule["isEnabled"]]

    def with_rules(self) -> dict[str, Any]:
        """An account that has at least two such rules."""
        found = max(self.plain(), key=lambda user: len(self.rules(user)))
        assert len(self.rules(found)) >= 2
        return dict(found)


def bench(plugin: str, folder: Path) -> Generator[Bench, None, None]:
    """A small tenant; `std.http` posts to the receiver."""
    if plugin == "std":
        with Receiver() as receiver:
            yield Bench(
                examples={
                    "std.http": Example({"method": "POST", "url": f"{receiver.url}/hook", "json": {"a": 1}}),
                    "std.jsonl": Example({"path": str(folder.with_name("events.jsonl"))}),
                },
                state=lambda: list(receiver.seen),
            )
        return
    unhurried = GraphRules(throttle_scale=0, directory_audit_latency=NOW, audit_search_runs=NOW)
    simulator = Simulator(folder, seed=5, events=60, strictness=Strictness(graph=unhurried))
    with simulator:
        accounts = Accounts(simulator)
        user = accounts.with_rules()
        someone = {"user_id": user["id"]}
        rules = {**someone, "rule_ids": [rule["id"] for rule in accounts.rules(user)[:2]]}
        yield Bench(
            connections={
                "m365.tenant": simulator.m365_settings(),
                "intake.key": simulator.intake_settings(),
            },
            examples={
                "m365.get_user": Example(someone),
                "m365.list_inbox_rules": Example(someone),
                "m365.revoke_sessions": Example(someone),
                "m365.block_sign_in": Example(someone),
                "m365.allow_sign_in": Example(someone, first=[("m365.block_sign_in", someone)]),
                "m365.disable_inbox_rules": Example(rules),
                "m365.enable_inbox_rules": Example(rules, first=[("m365.disable_inbox_rules", rules)]),
                "m365.directory_audits": Example(first=[("m365.block_sign_in", someone)]),
                "m365.hunting": Example({"query": "AlertInfo"}),
            },
            state=lambda: digest(simulator.state_dir),
        )
