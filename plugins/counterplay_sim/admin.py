"""The admin port: settings, faults and the oracle's report for whoever holds the token of `sim.json`."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from counterplay_sim import activity_subscriptions as subscriptions
from counterplay_sim import grants
from counterplay_sim.clock import NANOSECONDS, stamp
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.oracle_ledger import LedgerEntry
from counterplay_sim.scenario.noise import CONTENT_TYPES
from counterplay_sim.tenant import Tenant

if TYPE_CHECKING:
    from counterplay_sim.simulator import Simulator


class AdminService:
    """The operations that `docs/simulator.md` describes, one a method and path."""

    name = "admin"

    def __init__(self, simulator: Simulator, token: str) -> None:
        self._simulator = simulator
        self._expected = f"Bearer {token}".encode()

    def handle(self, request: Request) -> Answer:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected):
            return self.failure(401, "the token of sim.json is missing")
        try:
            return self._operate(request)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            return self.failure(400, str(error))

    def failure(self, status: int, text: str) -> Answer:
        return _json({"error": text}, status)

    def _operate(self, request: Request) -> Answer:
        work = {
            ("GET", "/info"): self._info,
            ("GET", "/report"): self._report,
            ("GET", "/truth"): self._truth,
            ("POST", "/ledger"): self._ledger,
            ("GET", "/faults"): self._faults,
            ("POST", "/faults"): self._add_faults,
            ("DELETE", "/faults"): self._no_faults,
            ("GET", "/clock"): self._clock,
            ("POST", "/clock"): self._set_clock,
            ("GET", "/strictness"): self._strictness,
            ("POST", "/strictness"): self._set_strictness,
            ("GET", "/grants"): self._grants,
            ("PUT", "/grants"): self._set_grants,
            ("POST", "/events"): self._event,
            ("POST", "/subscriptions"): self._subscription,
            ("POST", "/renew"): self._renew,
            ("POST", "/finish"): self._finish,
        }.get((request.method, request.path))
        if work is None:
            return self.failure(404, f"there is no {request.method} {request.path}")
        return _json(work(request))

    def _info(self, request: Request) -> Any:
        return self._simulator.info()

    def _report(self, request: Request) -> Any:
        return self._simulator.oracle().verdict(self._tenant(request).id).to_dict()

    def _truth(self, request: Request) -> Any:
        return self._tenant(request).row.doc["truth"]

    def _ledger(self, request: Request) -> Any:
        entries = [LedgerEntry.parse(one) for one in _list(request)]
        return self._simulator.oracle().match(entries, self._tenant(request).id).to_dict()

    def _faults(self, request: Request) -> Any:
        return self._simulator.faults.report()

    def _add_faults(self, request: Request) -> Any:
        self._simulator.disturb(_list(request))
        return self._simulator.faults.report()

    def _no_faults(self, request: Request) -> Any:
        self._simulator.calm()
        return []

    def _clock(self, request: Request) -> Any:
        clock = self._simulator.clock
        return {
            "now": stamp(clock.now(), 6),
            "rate": clock.rate,
            "skew": clock.skew.total_seconds(),
        }

    def _set_clock(self, request: Request) -> Any:
        """`rate`, `set` (RFC 3339), `advance` (seconds), `skew` (seconds), in this order."""
        clock, wanted = self._simulator.clock, _object(request, "set", "advance", "rate", "skew")
        if "rate" in wanted:
            clock.run_at(wanted["rate"])
        if "set" in wanted:
            moment = datetime.fromisoformat(str(wanted["set"]).replace("Z", "+00:00"))
            clock.set(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        if "advance" in wanted:
            clock.advance(timedelta(seconds=wanted["advance"]))
        if "skew" in wanted:
            clock.skew_date(timedelta(seconds=wanted["skew"]))
        return self._clock(request)

    def _strictness(self, request: Request) -> Any:
        return self._simulator.strictness.to_dict()

    def _set_strictness(self, request: Request) -> Any:
        self._simulator.tighten(_object(request))
        return self._strictness(request)

    def _grants(self, request: Request) -> Any:
        return self._tenant(request).grants

    def _set_grants(self, request: Request) -> Any:
        """What the tenant's own application may do, by service; services that are not named stay."""
        tenant = self._tenant(request)
        grants.grant(tenant, _object(request))
        return tenant.grants

    def _event(self, request: Request) -> Any:
        """Write an event into the log: `content_type`, `event`, `listable_in` seconds from now."""
        wanted = _object(request, "content_type", "event", "listable_in")
        tenant, content_type, event = self._tenant(request), wanted["content_type"], wanted["event"]
        if content_type not in CONTENT_TYPES:
            raise ValueError(f"content_type is one of {', '.join(CONTENT_TYPES)}")
        if not isinstance(event, dict) or not isinstance(event.get("Id"), str):
            raise ValueError("event is an object with an Id")
        at = tenant.clock.now_ns() + int(float(wanted.get("listable_in", 0)) * NANOSECONDS)
        tenant.log(content_type, event, at)
        return {"event": event["Id"]}

    def _subscription(self, request: Request) -> Any:
        """Disable a subscription as an administrator would: `content_type`, `by`."""
        wanted = _object(request, "content_type", "by")
        tenant, by = self._tenant(request), wanted.get("by", "a tenant admin")
        if wanted.get("content_type") not in CONTENT_TYPES:
            raise ValueError(f"content_type is one of {', '.join(CONTENT_TYPES)}")
        if not isinstance(by, str) or not by:
            raise ValueError("by is the name of who disables it")
        subscriptions.stop(tenant, wanted["content_type"], by=by)
        return subscriptions.listed(tenant)

    def _renew(self, request: Request) -> Any:
        self._simulator.renew()
        return self._simulator.info()

    def _finish(self, request: Request) -> Any:
        slot = request.query().get("tenant")
        self._simulator.finish(int(slot) if slot else None)
        return {}

    def _tenant(self, request: Request) -> Tenant:
        """The tenant that `?tenant=` names by its number, else the first."""
        number = int(request.query().get("tenant", "1"))
        for tenant in self._simulator.tenants:
            if tenant.row.slot == number:
                return tenant
        raise ValueError(f"there is no tenant {number}")


def _list(request: Request) -> list[Any]:
    value = orjson.loads(request.body)
    return value if isinstance(value, list) else [value]


def _object(request: Request, *known: str) -> dict[str, Any]:
    value = orjson.loads(request.body)
    if not isinstance(value, dict):
        raise ValueError("the body is a JSON object")
    unknown = sorted(set(value) - set(known)) if known else []
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r}; there may be {', '.join(known)}")
    return value


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))
