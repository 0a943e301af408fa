"""The trigger `m365.directory_audits`: the audit log of Entra ID, through Graph."""

from __future__ import annotations

from datetime import timedelta

from counterplay_m365.following import GraphTrigger
from counterplay_m365.keeping import ENTRA_LOGS


class DirectoryAudits(GraphTrigger):
    """Collect changes of the directory: users, groups, roles, consents, MFA registrations, policies.

    Needs:
        Graph application permission `AuditLog.Read.All`; no licence.
    Cursor:
        As in `counterplay_m365.sweeps`, by `activityDateTime`.
    Delivery:
        At least once; the host drops repeats by `id`.
    Limits:
        5 requests in 10 seconds for an app and tenant. An entry appears after minutes, now and then
        after hours: half an hour is asked for again each time, six hours each hour. What appears later
        than that is not seen. Kept for 7 days, with Entra ID P1 for 30: what nobody asked for in time
        becomes a gap in the ledger.
    Source:
        https://learn.microsoft.com/graph/api/directoryaudit-list
    """

    name = "directory_audits"
    path = "/auditLogs/directoryAudits"
    what = "directory audits"
    moment = "activityDateTime"
    permission = "AuditLog.Read.All"
    page_size = 1000
    kept = ENTRA_LOGS
    overlap = timedelta(minutes=30)
    revisit = timedelta(hours=6)
    filters = (("category", "category"),)
