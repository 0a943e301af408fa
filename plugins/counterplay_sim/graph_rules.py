"""How strict the simulated Graph is. The defaults are what the real one documents, or was seen to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from counterplay_sim import fault_checks as check


@dataclass(frozen=True, slots=True)
class GraphRules:
    """The switches, as `Strictness(graph=GraphRules(...))` takes them.

    * `throttle_scale`: the documented limits times this; 0 turns throttling off. `retry_after`: whether a
      429 says how long to wait (identity protection never does). `mailbox_seconds`: how long a mailbox
      works on one request, which is what makes its four slots matter.
    * `settle`: for so long after a change, reads of the directory still show what was before.
    * `link_life`: how long an `@odata.nextLink` can be followed; `expired_link_status`: 400 or 410 after
      that. `empty_page_every`: each so many pages is empty though a link follows; 0 means never.
    * `directory_audit_latency`: how long after a change it is in `directoryAudits` (for the audit feed that
      is `Strictness.audit_latency`).
    * `premium_refusal_every`: each so many requests for sign-ins is refused for want of a premium licence
      though the tenant has one, as has been seen; 0 means never.
    * `synced_users`: `refuse` or `accept` a block of a user whose master is Active Directory.
    * `incident_orderby`: take `$orderby` on incidents, which was seen refused.
    * `legacy_alerts`: what `/security/alerts` has become: `empty`, `404` or `410`.
    * `audit_search_v1`: whether audit searches exist in v1.0, or only in beta. `audit_search_runs`: how long
      one is `running`. `audit_search_pascal`: its enumerations as on the wire, not as documented.
    * `token_requests`, `token_loop`: tokens that a tenant, and one application for one resource, may ask for
      within a minute before the token end-point throttles, and suspects a loop.
    * `inner_error`: how that member of an error is spelled.
    """

    throttle_scale: float = 1.0
    retry_after: bool = True
    mailbox_seconds: float = 0.0
    settle: timedelta = timedelta(0)
    link_life: timedelta = timedelta(hours=1)
    expired_link_status: int = 400
    empty_page_every: int = 0
    directory_audit_latency: timedelta = timedelta(minutes=5)
    premium_refusal_every: int = 0
    synced_users: str = "refuse"
    incident_orderby: bool = False
    legacy_alerts: str = "empty"
    audit_search_v1: bool = True
    audit_search_runs: timedelta = timedelta(minutes=3)
    audit_search_pascal: bool = True
    token_requests: int = 3000
    token_loop: int = 300
    inner_error: str = "innerError"

    def __post_init__(self) -> None:
        for name in ("empty_page_every", "premium_refusal_every"):
            check.whole(f"{name} of Graph", getattr(self, name))
        for name in ("token_requests", "token_loop"):
            check.whole(f"{name} of Graph", getattr(self, name), 1)
        for name in ("throttle_scale", "mailbox_seconds"):
            check.number(f"{name} of Graph", getattr(self, name), 0)
        for name in ("settle", "link_life", "directory_audit_latency", "audit_search_runs"):
            if getattr(self, name) < timedelta(0):
                raise ValueError(f"{name} of Graph is a span of time that is not negative")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} of Graph is one of {choices}, not {getattr(self, name)!r}")

    @classmethod
    def parse(cls, switches: Mapping[str, Any]) -> GraphRules:
        """From JSON, spans in seconds. ValueError: no switch has that name, or no such value."""
        values = {}
        defaults = cls()
        for name, value in switches.items():
            if name not in {field.name for field in fields(cls)}:
                raise ValueError(f"Graph has no switch {name!r}")
            usual = getattr(defaults, name)
            if (
                isinstance(usual, timedelta)
                and isinstance(value, int | float)
                and not isinstance(value, bool)
            ):
                value = timedelta(seconds=value)
            elif isinstance(usual, float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            elif type(value) is not type(usual):
                raise ValueError(f"{name} of Graph is a {type(usual).__name__}, not {value!r}")
            values[name] = value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As `parse` takes it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v.total_seconds() if isinstance(v, timedelta) else v for k, v in found.items()}


_CHOICES: dict[str, tuple[object, ...]] = {
    "expired_link_status": (400, 410),
    "synced_users": ("refuse", "accept"),
    "legacy_alerts": ("empty", "404", "410"),
    "inner_error": ("innerError", "innererror"),
}
