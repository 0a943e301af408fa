"""What a change leaves behind: an entry in `directoryAudits`, events in the audit feed, a journal line.

Names are those of the real services (the feed's end in a full stop, some hold an en dash and a space at the
end), so that a response shows in the audit log as it would. Both become listable some minutes later.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from counterplay_sim.clock import stamp, to_ns
from counterplay_sim.graph.call import Call
from counterplay_sim.objects import VISIBLE

Doc = dict[str, Any]

ENTRA = "Audit.AzureActiveDirectory"
EXCHANGE = "Audit.Exchange"


@dataclass(frozen=True, slots=True)
class Target:
    """What a directory operation was about. `changes` are (property, before, after)."""

    id: str
    type: str
    name: str | None = None
    upn: str | None = None
    changes: tuple[tuple[str, Any, Any], ...] = ()


def journal(call: Call, action: str, *, user: str, target: str, before: Doc, after: Doc) -> None:
    """Append to the write journal, whatever the change was."""
    call.tenant.journal(
        action, user=user, target=target, before=before, after=after, app=call.app, request=call.request_id
    )


def directory(
    call: Call,
    activity: str,
    category: str,
    target: Target,
    *,
    operation: str = "Update",
    service: str = "Core Directory",
) -> None:
    """A directory operation: one entry in `directoryAudits`, one event in `Audit.AzureActiveDirectory`."""
    now = call.clock.now()
    name = _app_name(call)
    changes = [
        {"displayName": key, "oldValue": _text(before), "newValue": _text(after)}
        for key, before, after in target.changes
    ]
    entry = {
        "id": f"Directory_{uuid.uuid4()}_{call.request_id[:5].upper()}",
        "activityDateTime": stamp(now, 7),
        "activityDisplayName": activity,
        "additionalDetails": [{"key": "User-Agent", "value": call.request.headers.get("user-agent", "")}],
        "category": category,
        "correlationId": call.request_id,
        "initiatedBy": _initiator(call, name),
        "loggedByService": service,
        "operationType": operation,
        "result": "success",
        "resultReason": "",
        "targetResources": [
            {
                "id": target.id,
                "displayName": target.name,
                "type": target.type,
                "userPrincipalName": target.upn,
                "groupType": None,
                "modifiedProperties": changes,
            }
        ],
        VISIBLE: stamp(now + call.rules.directory_audit_latency, 7),
    }
    call.tenant.objects["directoryAudit"].put(str(entry["id"]), entry)
    if service == "Core Directory":
        _feed(call, ENTRA, _core_directory(call, activity, target, changes, name))


def _initiator(call: Call, name: str) -> Doc:
    """Who did it: an application by itself, or a person through one."""
    if call.person is not None:
        user = {"id": call.principal, "displayName": None, "ipAddress": "", "userPrincipalName": call.person}
        return {"user": user, "app": None}
    app = {
        "appId": None,
        "displayName": name,
        "servicePrincipalId": call.principal,
        "servicePrincipalName": None,
    }
    return {"user": None, "app": app}


def exchange(call: Call, cmdlet: str, user: Doc, identity: str, parameters: dict[str, str]) -> None:
    """A cmdlet that Exchange ran for this application."""
    event = {
        **_event(call, 1, cmdlet, "Exchange"),
        "ResultStatus": "True",
        "UserKey": call.principal,
        "UserType": 4,
        "UserId": f"{call.app}@{call.tenant.id}",
        "ClientIP": "",
        "ObjectId": identity,
        "AppId": call.app,
        "ClientAppId": call.app,
        "ExternalAccess": False,
        "OrganizationName": call.tenant.domain,
        "OriginatingServer": "SIM0PR04MB0001 (15.20.7692.001)\r\n",
        "Parameters": [
            {"Name": "Mailbox", "Value": user["userPrincipalName"]},
            *({"Name": name, "Value": value} for name, value in parameters.items()),
        ],
        "RequestId": call.request_id,
    }
    _feed(call, EXCHANGE, event)


def _core_directory(call: Call, activity: str, target: Target, changes: list[Doc], name: str) -> Doc:
    return {
        **_event(call, 8, f"{activity}.", "AzureActiveDirectory"),
        "ResultStatus": "Success",
        "UserKey": f"{call.principal}@{call.tenant.id}",
        "UserType": 4 if call.person is None else 0,
        "UserId": call.person or f"ServicePrincipal_{call.principal}",
        "ObjectId": target.upn or target.id,
        "AzureActiveDirectoryEventType": 1,
        "ExtendedProperties": [],
        "ModifiedProperties": [
            {"Name": one["displayName"], "NewValue": one["newValue"], "OldValue": one["oldValue"]}
            for one in changes
        ],
        "Actor": [{"ID": name, "Type": 1}, {"ID": call.app, "Type": 2}, {"ID": call.principal, "Type": 2}],
        "ActorContextId": call.tenant.id,
        "InterSystemsId": call.request_id,
        "IntraSystemId": str(uuid.uuid4()),
        "SupportTicketId": "",
        "Target": [{"ID": f"{target.type}_{target.id}", "Type": 2}, {"ID": target.id, "Type": 2}]
        + ([{"ID": target.upn, "Type": 5}] if target.upn else []),
        "TargetContextId": call.tenant.id,
    }


def _event(call: Call, record_type: int, operation: str, workload: str) -> Doc:
    return {
        "CreationTime": call.clock.now().strftime("%Y-%m-%dT%H:%M:%S"),
        "Id": str(uuid.uuid4()),
        "Operation": operation,
        "OrganizationId": call.tenant.id,
        "RecordType": record_type,
        "Version": 1,
        "Workload": workload,
    }


def _feed(call: Call, content_type: str, event: Doc) -> None:
    latency = call.tenant.strictness.audit_latency // timedelta(microseconds=1) * 1000
    call.tenant.log(content_type, event, to_ns(call.clock.now()) + latency)


def _app_name(call: Call) -> str:
    principal = call.tenant.objects["servicePrincipal"].get(call.principal)
    return str(principal["displayName"]) if principal else call.app


def _text(value: Any) -> str:
    """Old and new values are JSON text inside strings, each in a list."""
    return "[]" if value is None else orjson.dumps([value]).decode()
