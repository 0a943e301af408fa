"""One cheap request for each module that shows whether the tenant offers it. Only reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from counterplay import Context, Need
from counterplay_m365.following import GraphTrigger
from counterplay_m365.graph import Graph
from counterplay_m365.sweeps import stamp
from counterplay_m365.times import floor
from counterplay_m365.triggers.alerts import Alerts
from counterplay_m365.triggers.directory_audits import DirectoryAudits
from counterplay_m365.triggers.incidents import Incidents
from counterplay_m365.triggers.risk_detections import RiskDetections
from counterplay_m365.triggers.risky_users import RiskyUsers
from counterplay_m365.triggers.sign_ins import SignIns

Probe = Callable[[Context], object]
_FOLLOWED: dict[str, type[GraphTrigger]] = {
    f"m365.{one.name}": one
    for one in (Alerts, Incidents, RiskDetections, RiskyUsers, SignIns, DirectoryAudits)
}


def probe(need: Need) -> Probe | None:
    """What to try for a module; None where nothing can be tried without an object or an effect."""
    followed = _FOLLOWED.get(need.uses)
    if followed is not None:
        return lambda context: _first_record(context, followed, need)
    if need.uses == "internal":
        return lambda context: Graph(context).verified_domains()
    if need.uses == "m365.hunting":
        return lambda context: Graph(context).hunt(_query(need), _last_minute(context))
    return None


def _first_record(context: Context, followed: type[GraphTrigger], need: Need) -> object:
    trigger = followed(need.arguments)
    return Graph(context).records(
        trigger.path,
        {"$top": "1"},
        trigger.what,
        needs=trigger.permission,
        licence=trigger.licence,
        version=trigger.version,
    )


def _query(need: Need) -> str:
    """The playbook's own, since a table may be missing though hunting is bought; any, if inputs make it."""
    query = str(need.arguments.get("query", "{{"))
    return "AlertInfo | take 1" if "{{" in query else query


def _last_minute(context: Context) -> str:
    now = floor(context.now())
    return f"{stamp(now - timedelta(minutes=1))}/{stamp(now)}"
