"""Microsoft Graph for the simulated tenants: v1.0, and of beta what v1.0 does not have."""

from __future__ import annotations

from counterplay_sim.graph.machines import audiences as machine_audiences
from counterplay_sim.graph.service import GraphService, audiences
from counterplay_sim.graph_rules import GraphRules

__all__ = ["GraphRules", "GraphService", "audiences", "machine_audiences"]
