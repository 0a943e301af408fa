"""Mailboxes: inbox rules, folders and settings. What Graph does not show (hidden rules) is not here."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import quote

from counterplay_sim.graph import audit
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import GraphError, bad_request, no_item, no_mailbox
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

RULE = "microsoft.graph.messageRule"
_RULES = Listing(RULE, page=100_000, options=frozenset({"$select", "$filter", "$top", "$skip"}))
_FOLDERS = Listing("microsoft.graph.mailFolder", page=10, most=1000)
_READ_ONLY = ("id", "hasError", "isReadOnly")
SETTINGS = "microsoft.graph.mailboxSettings"
_RECIPIENTS = ("forwardTo", "forwardAsAttachmentTo", "redirectTo", "fromAddresses", "sentToAddresses")
_MOST_SEQUENCE = 2**31 - 1
_WELL_KNOWN = (
    "Inbox",
    "Drafts",
    "Sent Items",
    "Deleted Items",
    "Junk Email",
    "Archive",
    "RSS Feeds",
    "Conversation History",
)


def _mailbox(call: Call, name: str) -> Doc:
    known = call.find("user", name.lower()) or call.tenant.user(name)
    if known is None:
        raise GraphError(404, "ErrorInvalidUser", f"The requested user '{name}' is invalid.")
    if known.get("@sim.mailbox") is False:
        raise no_mailbox()
    return known


def _inbox(call: Call, name: str, folder: str) -> Doc:
    user = _mailbox(call, name)
    if folder.lower() != "inbox" and folder != folder_id(user, "Inbox"):
        raise no_item()
    return user


def folder_id(user: Doc, name: str) -> str:
    """The id of a well-known folder of a mailbox."""

    digest = hashlib.sha256(f"{user['id']}/{name}".encode()).digest()
    return "AAMkAD" + base64.urlsafe_b64encode(digest[:26]).decode()


def _visible(call: Call, user: Doc) -> list[Doc]:
    """Rules that Graph lists: not those hidden by a client, and nothing of what only another can express."""
    found = []
    for rule in call.tenant.rules.get(user["id"], ()):
        if rule.get("@sim.hidden"):
            continue
        if rule["isReadOnly"]:
            rule = {
                key: value
                for key, value in rule.items()
                if key not in ("conditions", "actions", "exceptions")
            }
        found.append(rule)
    return found


def _context(name: str) -> str:
    return f"users('{quote(name)}')/mailFolders('inbox')/messageRules"


def _list(call: Call, name: str, folder: str) -> Answer:
    user = _inbox(call, name, folder)
    return call.collection(_context(name), _visible(call, user), _RULES)


def _find(call: Call, name: str, folder: str, key: str) -> tuple[Doc, Doc]:
    user = _inbox(call, name, folder)
    for rule in call.tenant.rules.get(user["id"], ()):
        if rule["id"] == key and not rule.get("@sim.hidden"):
            return user, rule
    raise no_item()


def _get(call: Call, name: str, folder: str, key: str) -> Answer:
    user, rule = _find(call, name, folder, key)
    shown = next(one for one in _visible(call, user) if one["id"] == rule["id"])
    return call.entity(_context(name), shown, RULE)


def _values(call: Call) -> Doc:
    values = call.body()
    for name in values:
        if name in _READ_ONLY:
            raise bad_request(f"The property '{name}' cannot be set.", "ErrorInvalidProperty")
    known = call.contract.properties(RULE)
    for name in values:
        if name not in known and "@odata." not in name:
            raise bad_request(
                f"The property '{name}' does not exist on type '{RULE}'. Make sure to only use property names"
                " that are defined by the type.",
                "RequestBodyRead",
            )
    try:
        call.contract.check(values, RULE)
    except GraphError as error:
        raise bad_request(error.message, "RequestBodyRead") from None
    _refuse_impossible(values)
    return {name: value for name, value in values.items() if "@odata." not in name}


def _refuse_impossible(values: Doc) -> None:
    """What the contract's types let pass, and Exchange does not. GraphError 400."""
    for name in ("displayName", "sequence", "isEnabled", "actions"):
        if name in values and values[name] in (None, "", {}):
            raise bad_request(f"The property '{name}' must have a value.", "ErrorInvalidRequest")
    if not 0 <= values.get("sequence", 0) <= _MOST_SEQUENCE:
        raise bad_request("The property 'sequence' is out of range.", "ErrorInvalidRequest")
    for part in ("actions", "conditions", "exceptions"):
        for name in _RECIPIENTS:
            for one in (values.get(part) or {}).get(name) or ():
                if not (one.get("emailAddress") or {}).get("address"):
                    raise bad_request(f"A recipient of '{name}' has no address.", "ErrorInvalidRequest")


def _create(call: Call, name: str, folder: str) -> Answer:
    user = _inbox(call, name, folder)
    values = _values(call)
    if not values.get("displayName") or not values.get("actions"):
        missing = "actions" if values.get("displayName") else "displayName"
        raise bad_request(f"The required property '{missing}' is missing.", "ErrorInvalidRequest")
    rules = call.tenant.rules.get(user["id"], [])
    rule = {
        "id": "AQAAA" + secrets.token_urlsafe(9) + "=",
        "displayName": values["displayName"],
        "sequence": values.get("sequence") or len(rules) + 1,
        "isEnabled": values.get("isEnabled", True),
        "hasError": False,
        "isReadOnly": False,
        "conditions": values.get("conditions"),
        "actions": values["actions"],
        "exceptions": values.get("exceptions"),
    }
    with call.tenant.transaction():
        call.tenant.rules.put(user["id"], [*rules, rule])
        audit.journal(call, "create_rule", user=user["id"], target=rule["id"], before={}, after=rule)
        parameters = {"Name": rule["displayName"], **_parameters(rule)}
        audit.exchange(call, "New-InboxRule", user, _identity(user, rule), parameters)
    return call.entity(_context(name), rule, RULE, status=201)


def _update(call: Call, name: str, folder: str, key: str) -> Answer:
    user, rule = _find(call, name, folder, key)
    values = _values(call)
    _refuse_read_only(rule)
    changed = {**rule, **values}
    with call.tenant.transaction():
        rules = call.tenant.rules[user["id"]]
        call.tenant.rules.put(user["id"], [changed if one["id"] == key else one for one in rules])
        before = {one: rule.get(one) for one in values}
        audit.journal(call, "update_rule", user=user["id"], target=key, before=before, after=values)
        cmdlet, parameters = _change(rule, values)
        audit.exchange(call, cmdlet, user, _identity(user, rule), parameters)
    return call.entity(_context(name), changed, RULE)


def _delete(call: Call, name: str, folder: str, key: str) -> Answer:
    user, rule = _find(call, name, folder, key)
    _refuse_read_only(rule)
    with call.tenant.transaction():
        rules = call.tenant.rules[user["id"]]
        call.tenant.rules.put(user["id"], [one for one in rules if one["id"] != key])
        audit.journal(call, "delete_rule", user=user["id"], target=key, before=rule, after={})
        audit.exchange(
            call, "Remove-InboxRule", user, _identity(user, rule), {"Identity": rule["displayName"]}
        )
    return Answer(204)


def _refuse_read_only(rule: Doc) -> None:
    if rule["isReadOnly"]:
        raise bad_request("The rule is read-only and cannot be modified.", "ErrorInvalidRequest")


def _identity(user: Doc, rule: Doc) -> str:
    return f"{user['userPrincipalName'].partition('@')[0]}\\{rule['displayName']}"


def _change(rule: Doc, values: Doc) -> tuple[str, dict[str, str]]:
    """The cmdlet that Exchange logs: switching a rule has its own."""
    if set(values) == {"isEnabled"}:
        return ("Enable-InboxRule" if values["isEnabled"] else "Disable-InboxRule"), {
            "Identity": rule["displayName"]
        }
    return "Set-InboxRule", {"Identity": rule["displayName"], **_parameters(values)}


_NAMES = {
    "forwardTo": "ForwardTo",
    "forwardAsAttachmentTo": "ForwardAsAttachmentTo",
    "redirectTo": "RedirectTo",
    "delete": "DeleteMessage",
    "markAsRead": "MarkAsRead",
    "moveToFolder": "MoveToFolder",
    "copyToFolder": "CopyToFolder",
    "stopProcessingRules": "StopProcessingRules",
    "bodyOrSubjectContains": "SubjectOrBodyContainsWords",
    "subjectContains": "SubjectContainsWords",
    "bodyContains": "BodyContainsWords",
    "senderContains": "FromAddressContainsWords",
}


def _parameters(rule: Doc) -> dict[str, str]:
    """What a cmdlet's parameters say of conditions and actions."""
    made = {}
    for part in ("conditions", "actions"):
        for name, value in (rule.get(part) or {}).items():
            if name in _NAMES and value is not None:
                made[_NAMES[name]] = _parameter(value)
    return made


def _parameter(value: Any) -> str:
    if isinstance(value, list):
        return ";".join(
            one["emailAddress"]["address"] if isinstance(one, dict) else str(one) for one in value
        )
    return str(value)


def _folders(call: Call, name: str) -> Answer:
    user = _mailbox(call, name)
    found = [
        {
            "id": folder_id(user, folder),
            "displayName": folder,
            "parentFolderId": folder_id(user, "Top of Information Store"),
            "childFolderCount": 0,
            "unreadItemCount": 0,
            "totalItemCount": 0,
            "isHidden": False,
        }
        for folder in _WELL_KNOWN
    ]
    return call.collection(f"users('{quote(name)}')/mailFolders", found, _FOLDERS)


def _settings_of(call: Call, user: Doc) -> Doc:
    known: Doc | None = call.tenant.objects["mailboxSettings"].get(user["id"])
    return known or {
        "archiveFolder": folder_id(user, "Archive"),
        "timeZone": "UTC",
        "dateFormat": "yyyy-MM-dd",
        "timeFormat": "HH:mm",
        "delegateMeetingMessageDeliveryOptions": "sendToDelegateOnly",
        "userPurpose": "user",
        "language": {"locale": "en-US", "displayName": "English (United States)"},
        "workingHours": None,
        "automaticRepliesSetting": {
            "status": "disabled",
            "externalAudience": "all",
            "scheduledStartDateTime": None,
            "scheduledEndDateTime": None,
            "internalReplyMessage": "",
            "externalReplyMessage": "",
        },
    }


def _settings(call: Call, name: str) -> Answer:
    context = f"users('{quote(name)}')/mailboxSettings"
    return call.entity(context, _settings_of(call, _mailbox(call, name)), SETTINGS)


def _update_settings(call: Call, name: str) -> Answer:
    user = _mailbox(call, name)
    values = call.body(SETTINGS)
    known = _settings_of(call, user)
    with call.tenant.transaction():
        call.tenant.objects["mailboxSettings"].put(user["id"], {**known, **values})
        before = {one: known.get(one) for one in values}
        audit.journal(
            call, "update_mailbox_settings", user=user["id"], target=user["id"], before=before, after=values
        )
        audit.exchange(
            call,
            "Set-MailboxAutoReplyConfiguration",
            user,
            user["userPrincipalName"],
            dict.fromkeys(values, ""),
        )
    return _settings(call, name)


_RULE = "/users/{}/mailFolders/{}/messageRules"
ROUTES = {
    f"GET {_RULE}": _list,
    f"POST {_RULE}": _create,
    f"GET {_RULE}/{{}}": _get,
    f"PATCH {_RULE}/{{}}": _update,
    f"DELETE {_RULE}/{{}}": _delete,
    "GET /users/{}/mailFolders": _folders,
    "GET /users/{}/mailboxSettings": _settings,
    "PATCH /users/{}/mailboxSettings": _update_settings,
}
