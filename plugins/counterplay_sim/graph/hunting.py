"""Advanced hunting over the simulator's own tables; `kql.py` says which part of the language it takes.

Tables, as far as the tenant has data for them: `AlertInfo`, `AlertEvidence`, `IdentityLogonEvents`,
`AADSignInEventsBeta`, `CloudAppEvents`, `EmailEvents`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from counterplay_sim.clock import stamp, to_ns
from counterplay_sim.graph import kql
from counterplay_sim.graph.audit_search import events
from counterplay_sim.graph.call import Call
from counterplay_sim.graph.errors import GraphError, bad_request
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]
Row = dict[str, Any]

MOST_ROWS = 100_000
LONGEST = timedelta(days=30)
_PERIOD = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")

_TIME = "Timestamp"
TABLES: dict[str, dict[str, str]] = {
    "AlertInfo": {
        _TIME: "DateTime",
        "AlertId": "String",
        "Title": "String",
        "Category": "String",
        "Severity": "String",
        "ServiceSource": "String",
        "DetectionSource": "String",
        "AttackTechniques": "String",
    },
    "AlertEvidence": {
        _TIME: "DateTime",
        "AlertId": "String",
        "Title": "String",
        "Categories": "String",
        "Severity": "String",
        "ServiceSource": "String",
        "DetectionSource": "String",
        "EntityType": "String",
        "EvidenceRole": "String",
        "RemoteIP": "String",
        "AccountName": "String",
        "AccountObjectId": "String",
        "AccountUpn": "String",
        "DeviceId": "String",
        "DeviceName": "String",
        "OAuthApplicationId": "String",
        "RemoteUrl": "String",
        "EmailSubject": "String",
        "NetworkMessageId": "String",
        "AdditionalFields": "String",
    },
    "IdentityLogonEvents": {
        _TIME: "DateTime",
        "ActionType": "String",
        "Application": "String",
        "LogonType": "String",
        "FailureReason": "String",
        "AccountUpn": "String",
        "AccountObjectId": "String",
        "AccountDisplayName": "String",
        "IPAddress": "String",
        "Location": "String",
        "ReportId": "String",
        "AdditionalFields": "Object",
    },
    "AADSignInEventsBeta": {
        _TIME: "DateTime",
        "Application": "String",
        "ApplicationId": "String",
        "LogonType": "String",
        "ErrorCode": "Int64",
        "CorrelationId": "String",
        "SessionId": "String",
        "AccountDisplayName": "String",
        "AccountObjectId": "String",
        "AccountUpn": "String",
        "IPAddress": "String",
        "Country": "String",
        "City": "String",
        "UserAgent": "String",
        "ClientAppUsed": "String",
        "RiskLevelDuringSignIn": "Int64",
        "RequestId": "String",
        "ReportId": "String",
    },
    "CloudAppEvents": {
        _TIME: "DateTime",
        "ActionType": "String",
        "Application": "String",
        "ApplicationId": "Int64",
        "AccountObjectId": "String",
        "AccountId": "String",
        "AccountDisplayName": "String",
        "IsAdminOperation": "SByte",
        "UserAgent": "String",
        "IPAddress": "String",
        "ObjectName": "String",
        "ReportId": "String",
        "RawEventData": "Object",
    },
    "EmailEvents": {
        _TIME: "DateTime",
        "NetworkMessageId": "String",
        "InternetMessageId": "String",
        "SenderFromAddress": "String",
        "SenderIPv4": "String",
        "RecipientEmailAddress": "String",
        "Subject": "String",
        "DeliveryAction": "String",
        "DeliveryLocation": "String",
        "ThreatTypes": "String",
        "EmailDirection": "String",
        "ReportId": "String",
    },
}
_APPS = {
    "Exchange": ("Microsoft Exchange Online", 20893),
    "SharePoint": ("Microsoft SharePoint Online", 20892),
    "OneDrive": ("Microsoft OneDrive for Business", 15600),
    "MicrosoftTeams": ("Microsoft Teams", 28375),
    "AzureActiveDirectory": ("Microsoft 365", 11161),
}


def _run(call: Call) -> Answer:
    values = call.body()
    sent = {name.lower(): value for name, value in values.items()}
    unknown = sorted(set(sent) - {"query", "timespan"})
    if unknown:
        raise bad_request(f"The parameter '{unknown[0]}' is not a parameter of the operation.")
    text = sent.get("query")
    if not isinstance(text, str) or not text.strip():
        raise bad_request("The Query field is missing or empty.")
    if not call.licence.hunting:
        raise GraphError(403, "Forbidden", "The tenant's licence does not include advanced hunting.")
    start, end = _window(call, sent.get("timespan"))
    try:
        result = _result(call, text, start, end)
    except kql.KqlError as error:
        raise bad_request(str(error)) from None
    return call.json(
        {
            "@odata.context": f"https://graph.microsoft.com/{call.version}/$metadata"
            "#microsoft.graph.security.huntingQueryResults",
            "schema": [{"name": name, "type": kind} for name, kind in result.columns.items()],
            "results": [_shown(row) for row in result.rows[:MOST_ROWS]],
        }
    )


def _result(call: Call, text: str, start: datetime, end: datetime) -> kql.Result:
    name = kql.table_of(text)
    if name not in TABLES:
        raise kql.KqlError(f"'where' operator: Failed to resolve table or column expression named '{name}'")
    rows = (row for row in _ROWS[name](call, start) if start <= row[_TIME] < end)
    return kql.run(text, TABLES[name], rows, call.clock.now())


def _window(call: Call, timespan: Any) -> tuple[datetime, datetime]:
    """`P7D`, `start/end`, `P7D/end`, `start/P7D`, or one date; the last 30 days by default."""
    now = call.clock.now()
    if timespan is None:
        return now - LONGEST, now
    first, _, last = str(timespan).partition("/")
    try:
        if not last:
            period = _period(first)
            start = now - period if period is not None else _date(first)
            return max(start, now - LONGEST), now
        before, after = _period(first), _period(last)
        if before is not None:
            end = _date(last)
            return max(end - before, now - LONGEST), end
        start = _date(first)
        end = start + after if after is not None else _date(last)
        return max(start, now - LONGEST), end
    except (ValueError, OverflowError):
        raise bad_request(f"Invalid Timespan: '{timespan}'.") from None


def _period(text: str) -> timedelta | None:
    match = _PERIOD.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, seconds = (int(one or 0) for one in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _date(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown(row: Row) -> Row:
    return {name: stamp(value, 7) if isinstance(value, datetime) else value for name, value in row.items()}


def _moment(text: Any) -> datetime:
    """A time of Graph's, whose seventh digit a datetime cannot hold."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(text)))


def _alert_info(call: Call, start: datetime) -> Iterator[Row]:
    for alert in call.every("alert"):
        yield {
            _TIME: _moment(alert["createdDateTime"]),
            "AlertId": alert["id"],
            "Title": alert["title"],
            "Category": alert.get("category"),
            "Severity": str(alert["severity"]).capitalize(),
            "ServiceSource": alert.get("productName"),
            "DetectionSource": alert.get("detectionSource"),
            "AttackTechniques": orjson.dumps(alert.get("mitreTechniques") or []).decode(),
        }


_ENTITIES = {
    "userEvidence": "User",
    "ipEvidence": "Ip",
    "mailboxEvidence": "Mailbox",
    "deviceEvidence": "Machine",
    "urlEvidence": "Url",
    "oauthApplicationEvidence": "OAuthApplication",
    "analyzedMessageEvidence": "MailMessage",
    "mailboxConfigurationEvidence": "MailboxConfiguration",
    "cloudLogonSessionEvidence": "CloudLogonSession",
}


def _alert_evidence(call: Call, start: datetime) -> Iterator[Row]:
    for alert in call.every("alert"):
        for one in alert.get("evidence") or ():
            kind = one["@odata.type"].rpartition(".")[2]
            account = one.get("userAccount") or (one.get("account") or {}).get("userAccount") or {}
            yield {
                _TIME: _moment(one["createdDateTime"]),
                "AlertId": alert["id"],
                "Title": alert["title"],
                "Categories": orjson.dumps([alert.get("category")]).decode(),
                "Severity": str(alert["severity"]).capitalize(),
                "ServiceSource": alert.get("productName"),
                "DetectionSource": alert.get("detectionSource"),
                "EntityType": _ENTITIES.get(kind, kind.removesuffix("Evidence")),
                "EvidenceRole": "Impacted"
                if {"compromised", "attacked"} & set(one.get("roles") or ())
                else "Related",
                "RemoteIP": one.get("ipAddress"),
                "AccountName": account.get("accountName"),
                "AccountObjectId": account.get("azureAdUserId"),
                "AccountUpn": account.get("userPrincipalName") or one.get("upn"),
                "DeviceId": one.get("mdeDeviceId"),
                "DeviceName": one.get("deviceDnsName"),
                "OAuthApplicationId": one.get("appId") if kind == "oauthApplicationEvidence" else None,
                "RemoteUrl": one.get("url"),
                "EmailSubject": one.get("subject"),
                "NetworkMessageId": one.get("networkMessageId"),
                "AdditionalFields": orjson.dumps(one).decode(),
            }


def _logons(call: Call, start: datetime) -> Iterator[Row]:
    for one in call.every("signIn"):
        status = one.get("status") or {}
        yield {
            _TIME: _moment(one["createdDateTime"]),
            "ActionType": "LogonSuccess" if status.get("errorCode") == 0 else "LogonFailed",
            "Application": one.get("appDisplayName"),
            "LogonType": "Interactive" if one.get("isInteractive") else "NonInteractive",
            "FailureReason": status.get("failureReason"),
            "AccountUpn": one.get("userPrincipalName"),
            "AccountObjectId": one.get("userId"),
            "AccountDisplayName": one.get("userDisplayName"),
            "IPAddress": one.get("ipAddress"),
            "Location": (one.get("location") or {}).get("countryOrRegion"),
            "ReportId": one["id"],
            "AdditionalFields": {},
        }


_LEVELS = {"none": 0, "low": 10, "medium": 50, "high": 100}


def _sign_ins(call: Call, start: datetime) -> Iterator[Row]:
    for one in call.every("signIn"):
        place = one.get("location") or {}
        yield {
            _TIME: _moment(one["createdDateTime"]),
            "Application": one.get("appDisplayName"),
            "ApplicationId": one.get("appId"),
            "LogonType": orjson.dumps(one.get("signInEventTypes") or ["interactiveUser"]).decode(),
            "ErrorCode": (one.get("status") or {}).get("errorCode"),
            "CorrelationId": one.get("correlationId"),
            "SessionId": one.get("sessionId"),
            "AccountDisplayName": one.get("userDisplayName"),
            "AccountObjectId": one.get("userId"),
            "AccountUpn": one.get("userPrincipalName"),
            "IPAddress": one.get("ipAddress"),
            "Country": place.get("countryOrRegion"),
            "City": place.get("city"),
            "UserAgent": one.get("userAgent"),
            "ClientAppUsed": one.get("clientAppUsed"),
            "RiskLevelDuringSignIn": _LEVELS.get(str(one.get("riskLevelDuringSignIn")), 0),
            "RequestId": one["id"],
            "ReportId": one["id"],
        }


def _cloud_apps(call: Call, start: datetime) -> Iterator[Row]:
    """The audit log as Defender for Cloud Apps sees it."""
    for event in events(call, to_ns(start), call.clock.now_ns()):
        if event.get("Workload") not in _APPS:
            continue
        name, number = _APPS[event["Workload"]]
        user = call.tenant.user(str(event.get("UserId") or ""))
        yield {
            _TIME: datetime.fromisoformat(f"{event['CreationTime']}+00:00"),
            "ActionType": event.get("Operation"),
            "Application": name,
            "ApplicationId": number,
            "AccountObjectId": user["id"] if user else None,
            "AccountId": event.get("UserId"),
            "AccountDisplayName": user["displayName"] if user else None,
            "IsAdminOperation": int(event.get("UserType") == 2),
            "UserAgent": event.get("UserAgent") or event.get("ClientInfoString"),
            "IPAddress": event.get("ClientIP") or event.get("ClientIPAddress"),
            "ObjectName": event.get("ObjectId"),
            "ReportId": event["Id"],
            "RawEventData": event,
        }


def _mails(call: Call, start: datetime) -> Iterator[Row]:
    """Messages that some alert has analysed: the only ones whose transport the tenant knows."""
    for alert in call.every("alert"):
        for one in alert.get("evidence") or ():
            if not one["@odata.type"].endswith(".analyzedMessageEvidence"):
                continue
            sender = one.get("p2Sender") or one.get("p1Sender") or {}
            yield {
                _TIME: _moment(one.get("receivedDateTime") or one["createdDateTime"]),
                "NetworkMessageId": one.get("networkMessageId"),
                "InternetMessageId": one.get("internetMessageId"),
                "SenderFromAddress": sender.get("emailAddress"),
                "SenderIPv4": one.get("senderIp"),
                "RecipientEmailAddress": one.get("recipientEmailAddress"),
                "Subject": one.get("subject"),
                "DeliveryAction": one.get("deliveryAction"),
                "DeliveryLocation": one.get("deliveryLocation"),
                "ThreatTypes": ", ".join(one.get("threats") or ()),
                "EmailDirection": one.get("antiSpamDirection"),
                "ReportId": one.get("networkMessageId"),
            }


_ROWS: dict[str, Callable[[Call, datetime], Iterator[Row]]] = {
    "AlertInfo": _alert_info,
    "AlertEvidence": _alert_evidence,
    "IdentityLogonEvents": _logons,
    "AADSignInEventsBeta": _sign_ins,
    "CloudAppEvents": _cloud_apps,
    "EmailEvents": _mails,
}

ROUTES = {"POST /security/runHuntingQuery": _run}
