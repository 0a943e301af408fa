"""Change notifications: refused in words, since the simulator delivers none."""

from __future__ import annotations

from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import GraphError, no_object
from counterplay_sim.http_server import Answer

_SUBSCRIPTIONS = Listing("microsoft.graph.subscription", options=frozenset())


def _list(call: Call) -> Answer:
    return call.collection("subscriptions", [], _SUBSCRIPTIONS)


def _create(call: Call) -> Answer:
    call.body("microsoft.graph.subscription")
    raise GraphError(
        501, "NotImplemented", "This simulated tenant delivers no change notifications: poll instead."
    )


def _missing(call: Call, key: str) -> Answer:
    raise no_object(key)


ROUTES = {
    "GET /subscriptions": _list,
    "POST /subscriptions": _create,
    "GET /subscriptions/{}": _missing,
    "PATCH /subscriptions/{}": _missing,
    "DELETE /subscriptions/{}": _missing,
    "POST /subscriptions/{}/reauthorize": _missing,
}
