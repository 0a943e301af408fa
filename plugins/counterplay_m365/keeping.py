"""How long Microsoft keeps what a trigger follows, and what is lost when nobody asked for longer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from counterplay import Gap, WorkError
from counterplay_m365.graph import Graph
from counterplay_m365.licences import ENTRA_P1, Licence


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long: for everybody, and with a licence."""

    days: int
    licence: Licence | None = None
    licensed_days: int = 0

    def gap(self, graph: Graph, mark: datetime, now: datetime) -> Gap | None:
        """What happened since `mark` and is no longer there.

        The plans are asked for only when they decide. An app that may not read them gets the gap that
        there is without the licence: rather one too many is named than one too few.
        """
        edge = now - timedelta(days=self.days)
        if mark >= edge:
            return None
        cause = f"the service keeps it for {self.days} days"
        if self.licence is not None:
            try:
                licensed = self.licence.covered_by(graph.plans())
            except WorkError:
                cause += (
                    f", or for {self.licensed_days} with {self.licence.name}, and the plans cannot be read"
                )
            else:
                days, lacking = (self.licensed_days, "") if licensed else (self.days, self.licence.name)
                edge = now - timedelta(days=days)
                cause = f"the service keeps it for {days} days{f' without {lacking}' if lacking else ''}"
        return Gap(mark, edge, cause) if mark < edge else None


#: https://learn.microsoft.com/entra/identity/monitoring-health/reference-reports-data-retention
ENTRA_LOGS = Kept(7, ENTRA_P1, 30)
HUNTING_TABLES = Kept(30)
