"""The plugin `m365`: Microsoft 365. One connection, triggers that collect, actions that contain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from counterplay import EffectIntent, EffectVerdict, Module, StepContext, hookimpl

COUNTERPLAY_API = "1.0"


@hookimpl
def counterplay_modules() -> Iterable[type[Module]]:
    from counterplay_m365.actions.add_to_role import AddToRole
    from counterplay_m365.actions.allow_sign_in import AllowSignIn
    from counterplay_m365.actions.block_sign_in import BlockSignIn
    from counterplay_m365.actions.create_inbox_rules import CreateInboxRules
    from counterplay_m365.actions.delete_inbox_rules import DeleteInboxRules
    from counterplay_m365.actions.disable_app import DisableApp
    from counterplay_m365.actions.disable_inbox_rules import DisableInboxRules
    from counterplay_m365.actions.enable_app import EnableApp
    from counterplay_m365.actions.enable_inbox_rules import EnableInboxRules
    from counterplay_m365.actions.force_password_change import ForcePasswordChange
    from counterplay_m365.actions.get_user import GetUser
    from counterplay_m365.actions.list_app_roles import ListAppRoles
    from counterplay_m365.actions.list_authentication_methods import ListAuthenticationMethods
    from counterplay_m365.actions.list_consents import ListConsents
    from counterplay_m365.actions.list_inbox_rules import ListInboxRules
    from counterplay_m365.actions.remove_app_roles import RemoveAppRoles
    from counterplay_m365.actions.remove_authentication_method import RemoveAuthenticationMethod
    from counterplay_m365.actions.remove_consents import RemoveConsents
    from counterplay_m365.actions.remove_from_role import RemoveFromRole
    from counterplay_m365.actions.restore_app_roles import RestoreAppRoles
    from counterplay_m365.actions.restore_consents import RestoreConsents
    from counterplay_m365.actions.revoke_sessions import RevokeSessions
    from counterplay_m365.tenant import Tenant
    from counterplay_m365.triggers.alerts import Alerts
    from counterplay_m365.triggers.audit_log import AuditLog
    from counterplay_m365.triggers.audit_search import AuditSearch
    from counterplay_m365.triggers.audit_webhook import AuditWebhook
    from counterplay_m365.triggers.directory_audits import DirectoryAudits
    from counterplay_m365.triggers.hunting import Hunting
    from counterplay_m365.triggers.incidents import Incidents
    from counterplay_m365.triggers.risk_detections import RiskDetections
    from counterplay_m365.triggers.risky_users import RiskyUsers
    from counterplay_m365.triggers.sign_ins import SignIns

    return (
        Tenant,
        AuditLog,
        Alerts,
        Incidents,
        RiskDetections,
        RiskyUsers,
        SignIns,
        DirectoryAudits,
        Hunting,
        AuditSearch,
        AuditWebhook,
        GetUser,
        RevokeSessions,
        BlockSignIn,
        AllowSignIn,
        ListInboxRules,
        DisableInboxRules,
        EnableInboxRules,
        DeleteInboxRules,
        CreateInboxRules,
        ForcePasswordChange,
        ListAuthenticationMethods,
        RemoveAuthenticationMethod,
        ListConsents,
        RemoveConsents,
        RestoreConsents,
        ListAppRoles,
        RemoveAppRoles,
        RestoreAppRoles,
        DisableApp,
        EnableApp,
        RemoveFromRole,
        AddToRole,
    )


@hookimpl
def counterplay_before_effect(intent: EffectIntent, context: StepContext) -> EffectVerdict | None:
    from counterplay_m365 import administrators

    return administrators.verdict(intent, context)


@hookimpl
def counterplay_template_filters() -> Mapping[str, Callable[..., Any]]:
    from counterplay_m365 import entities
    from counterplay_m365.evidence import m365_users
    from counterplay_m365.legacy import m365_from_legacy_alert

    return {
        "m365_users": m365_users,
        "m365_mailboxes": entities.m365_mailboxes,
        "m365_devices": entities.m365_devices,
        "m365_addresses": entities.m365_addresses,
        "m365_apps": entities.m365_apps,
        "m365_is_internal": entities.m365_is_internal,
        "m365_external": entities.m365_external,
        "m365_from_legacy_alert": m365_from_legacy_alert,
    }


@hookimpl
def counterplay_removed_modules() -> Mapping[str, str]:
    from counterplay_m365.legacy import MIGRATION

    return {"alerts_legacy": MIGRATION}
