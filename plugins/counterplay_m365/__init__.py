"""The plugin `m365`: Microsoft 365. One connection, triggers that collect, actions that contain."""

from __future__ import annotations

from collections.abc import Iterable

from counterplay import Module, hookimpl


@hookimpl
def counterplay_modules() -> Iterable[type[Module]]:
    from counterplay_m365.tenant import Tenant
    from counterplay_m365.triggers.audit_log import AuditLog

    return (Tenant, AuditLog)
