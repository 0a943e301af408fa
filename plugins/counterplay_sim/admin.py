"""The admin port: settings, faults and the oracle's report for whoever holds the token of `sim.json`."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import orjson

from counterplay_sim.http_server import Answer, Request

if TYPE_CHECKING:
    from counterplay_sim.simulator import Simulator


class AdminService:
    """`GET /info` `/report` `/faults`, `POST /faults` `/renew` `/finish`, `DELETE /faults`."""

    name = "admin"

    def __init__(self, simulator: Simulator, token: str) -> None:
        self._simulator = simulator
        self._expected = f"Bearer {token}".encode()

    def handle(self, request: Request) -> Answer:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected):
            return self.failure(401, "the token of sim.json is missing")
        try:
            return self._operate(request)
        except (ValueError, TypeError) as error:
            return self.failure(400, str(error))

    def failure(self, status: int, text: str) -> Answer:
        return _json({"error": text}, status)

    def _operate(self, request: Request) -> Answer:
        simulator = self._simulator
        match request.method, request.path:
            case "GET", "/info":
                return _json(simulator.info())
            case "POST", "/renew":
                simulator.renew()
                return _json(simulator.info())
            case "POST", "/finish":
                simulator.finish()
                return _json({})
            case "GET", "/report":
                return _json(simulator.oracle().verdict().to_dict())
            case "GET", "/faults":
                return _json(simulator.faults.report())
            case "POST", "/faults":
                rules = orjson.loads(request.body)
                for rule in rules if isinstance(rules, list) else [rules]:
                    simulator.faults.add(rule)
                return _json(simulator.faults.report())
            case "DELETE", "/faults":
                simulator.faults.clear()
                return _json([])
        return self.failure(404, f"there is no {request.method} {request.path}")


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))
