"""The old `/security/alerts`: removed by Microsoft, with three guesses at what it answers now."""

from __future__ import annotations

from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import GraphError, no_resource
from counterplay_sim.http_server import Answer

_ALERTS = Listing("microsoft.graph.alert")


def _refuse(call: Call) -> None:
    if call.rules.legacy_alerts == "410":
        raise GraphError(410, "Gone", "The legacy alerts API was removed. Use /security/alerts_v2.")
    if call.rules.legacy_alerts == "404":
        raise GraphError(404, "UnknownError", "")


def _list(call: Call) -> Answer:
    _refuse(call)
    return call.collection("security/alerts", [], _ALERTS)


def _one(call: Call, key: str) -> Answer:
    _refuse(call)
    raise no_resource(f"the alert '{key}'")


ROUTES = {
    "GET /security/alerts": _list,
    "GET /security/alerts/{}": _one,
    "PATCH /security/alerts/{}": _one,
}
