"""The action `m365.run_hunting_query`: ask Defender XDR a question."""

from __future__ import annotations

import json

from counterplay import Action, JsonObject, StepContext
from counterplay_m365 import times
from counterplay_m365.graph import Graph


class RunHuntingQuery(Action):
    """Run an advanced hunting query (KQL) over the last days, and return its rows.

    Write values from an event into the query with care: in KQL a text is quoted by `'`, and `\\'` stands
    for a quote inside it.

    Needs:
        Graph application permission `ThreatHunting.Read.All`; a Defender plan with advanced hunting.
    Result:
        `{"rows": [{...}], "count": int, "complete": bool}`; `complete` is false when there are more rows
        than `limit`.
    Source:
        https://learn.microsoft.com/graph/api/security-security-runhuntingquery
    """

    name = "run_hunting_query"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        limit = int(self.arguments["limit"])
        until = times.ceil(context.now())
        since = until - times.span(str(self.arguments["look_back"]))
        span = f"{times.stamp(since)}Z/{times.stamp(until)}Z"
        rows = Graph(context).hunt(str(self.arguments["query"]), span)
        return {
            "rows": [json.loads(row) for row in rows[:limit]],
            "count": len(rows),
            "complete": len(rows) <= limit,
        }
