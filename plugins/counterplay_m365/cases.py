"""The part of Graph about alerts and incidents: triage, and what people wrote about them."""

from __future__ import annotations

from dataclasses import dataclass

from counterplay import JsonObject
from counterplay_m365.graph import Graph, segment
from counterplay_m365.licences import DEFENDER

_COMMENT = "#microsoft.graph.security.alertComment"


@dataclass(frozen=True, slots=True)
class CaseKind:
    """Alerts, or incidents: where they are, and what it takes."""

    noun: str
    path: str
    read: str
    write: str


ALERT = CaseKind("alert", "/security/alerts_v2", "SecurityAlert.Read.All", "SecurityAlert.ReadWrite.All")
INCIDENT = CaseKind(
    "incident", "/security/incidents", "SecurityIncident.Read.All", "SecurityIncident.ReadWrite.All"
)


class Cases(Graph):
    """Alerts and incidents of the tenant of a context."""

    def case(self, kind: CaseKind, identity: str) -> JsonObject:
        """One alert or incident. GoneError: there is none."""
        what = f"the {kind.noun} {identity!r}"
        return self.one(_path(kind, identity), what, needs=kind.read, licence=DEFENDER)

    def update(self, kind: CaseKind, identity: str, values: JsonObject) -> None:
        """Change properties of an alert or incident."""
        what = f"the {kind.noun} {identity!r}"
        self.write("PATCH", _path(kind, identity), what, values, needs=kind.write, licence=DEFENDER)

    def comment(self, kind: CaseKind, identity: str, text: str) -> None:
        """Add a comment; nothing takes it away again."""
        what = f"the {kind.noun} {identity!r}"
        body = {"@odata.type": _COMMENT, "comment": text}
        path = f"{_path(kind, identity)}/comments"
        self.write("POST", path, what, body, needs=kind.write, licence=DEFENDER)


def comments_of(case: JsonObject, text: str) -> int:
    """How many comments say exactly this."""
    return sum(1 for one in case.get("comments") or () if one.get("comment") == text)


def _path(kind: CaseKind, identity: str) -> str:
    return f"{kind.path}/{segment(identity)}"
