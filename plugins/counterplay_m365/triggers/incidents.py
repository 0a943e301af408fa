"""The trigger `m365.incidents`: incidents of Microsoft Defender XDR with all their alerts, through Graph."""

from __future__ import annotations

import json
from collections.abc import Sequence

from counterplay import Context, Event, GoneError, JsonObject
from counterplay.events import encoded
from counterplay_m365.following import GraphTrigger, members_of, text
from counterplay_m365.graph import Graph
from counterplay_m365.licences import DEFENDER

MAX_HOPS = 10
SURVIVOR = "survivorIncidentId"
_MORE = "alerts@odata.nextLink"


class Incidents(GraphTrigger):
    """Collect new and changed incidents, each with all its alerts, and follow merged ones.

    Each update of an incident is an event, an alert that joins it included; the first one starts a run.
    An incident that was merged into another (`status` is `redirected`) comes after the one it went
    into, and has the added member `survivorIncidentId`, its id: the two share one run.

    Needs:
        Graph application permission `SecurityIncident.Read.All`, and a Defender product or Identity
        Protection that raises alerts.
    Cursor:
        As in `counterplay_m365.sweeps`, by `lastUpdateDateTime`.
    Delivery:
        At least once; the host drops repeats by `id` and `lastUpdateDateTime`. An incident is the bytes
        that Graph sent, unless it was merged or Graph sent its alerts in several parts.
    Limits:
        50 incidents a page. A chain of merges is followed over ten hops. Not in China.
    Source:
        https://learn.microsoft.com/graph/api/security-list-incidents
    """

    name = "incidents"
    path = "/security/incidents"
    what = "incidents"
    moment = "lastUpdateDateTime"
    created = "createdDateTime"
    moves = True
    permission = "SecurityIncident.Read.All"
    licence = DEFENDER
    page_size = 50  # more is refused with 400
    filters = (("severity", "severity"), ("status", "status"))

    def query(self) -> dict[str, str]:
        return {"$expand": "alerts"}

    def completed(self, context: Context, records: Sequence[bytes]) -> Sequence[bytes]:
        graph = Graph(context)
        found: list[bytes] = []
        for raw in records:
            whole = _with_all_alerts(graph, raw)
            chain = _survivors(graph, whole)
            if not chain:
                found.append(whole)
                continue
            survivor = members_of(Event(chain[-1]))
            found.append(chain[-1])
            found.append(encoded({**Event(whole).data, SURVIVOR: text(survivor.get("id"))}))
        return found

    def run_key(self, event: Event) -> str | None:
        found = members_of(event)
        return text(found.get(SURVIVOR)) or text(found.get("redirectIncidentId")) or text(found.get("id"))


def _survivors(graph: Graph, raw: bytes) -> list[bytes]:
    """The incidents that this one was merged into, one after the other; none when it stands alone.

    A chain that leads into itself, that is too long or whose next incident is gone ends where it does.
    """
    chain: list[bytes] = []
    seen: set[str] = set()
    here = members_of(Event(raw))
    while len(chain) < MAX_HOPS:
        following = text(here.get("redirectIncidentId"))
        if following is None or following in seen or following == text(members_of(Event(raw)).get("id")):
            break
        seen.add(following)
        try:
            chain.append(_with_all_alerts(graph, graph.incident(following)))
        except GoneError:
            break
        here = members_of(Event(chain[-1]))
    return chain


def _with_all_alerts(graph: Graph, raw: bytes) -> bytes:
    """The incident with the rest of its alerts, where Graph sent only a first part of them."""
    if _MORE.encode() not in raw:
        return raw
    incident: JsonObject = dict(Event(raw).data)
    following = incident.pop(_MORE, None)
    alerts = list(incident.get("alerts") or ())
    seen: set[str] = set()
    while isinstance(following, str) and following and following not in seen:
        seen.add(following)
        page = graph.records_at(
            following, "the alerts of an incident", needs=Incidents.permission, licence=DEFENDER
        )
        alerts += [json.loads(one) for one in page.records]
        following = page.next_link
    return encoded({**incident, "alerts": alerts})
