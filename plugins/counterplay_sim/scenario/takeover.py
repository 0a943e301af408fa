"""An account takeover: stolen password, a rule that hides the mail, a mailbox and a share read empty.

The chain is what an analyst finds in such cases: failed sign-ins, one that succeeds from a network that
the user never used, an inbox rule called `.`, reading, downloading. The alert names user, rule and
address, as Defender does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.scenario import noise
from counterplay_sim.scenario.cast import DOMAIN, Person, guid, rule
from counterplay_sim.scenario.noise import Scene

Doc = dict[str, Any]

ATTACKER = "203.0.113.66"
OUTSIDE = "collect@evil.example"
TITLE = "Suspicious inbox manipulation rule"
AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36"
)


@dataclass(slots=True)
class Takeover:
    """What the attack left behind: events by content type, the malicious rule, the alert, its story."""

    events: list[tuple[str, datetime, Doc]]
    rule: Doc
    alert: Doc
    session: Doc


def take_over(scene: Scene, victim: Person, created: datetime) -> Takeover:
    """Attack one user; it began some three hours before `created` and the alert is minutes old."""
    chance = scene.chance
    start = created - timedelta(hours=3, minutes=chance.randint(0, 30))
    session = {"id": guid(chance), "issued": "", "ip": ATTACKER}
    events: list[tuple[str, datetime, Doc]] = []

    def add(content_type: str, at: datetime, event: Doc) -> None:
        events.append((content_type, at, event))

    at = start
    for _ in range(chance.randint(8, 14)):
        add(noise.ENTRA, at, noise.sign_in(scene, victim, at, error="50126", address=ATTACKER, agent=AGENT))
        at += timedelta(seconds=chance.randint(4, 40))
    add(
        noise.ENTRA,
        at,
        noise.sign_in(scene, victim, at, address=ATTACKER, agent=AGENT, session=session["id"]),
    )
    session["issued"] = stamp(at)
    hidden = malicious_rule(scene)
    at += timedelta(minutes=chance.randint(4, 9))
    rule_event = new_inbox_rule(scene, victim, hidden, at, session["id"])
    add(noise.EXCHANGE, at, rule_event)
    for _ in range(chance.randint(20, 30)):
        at += timedelta(seconds=chance.randint(10, 60))
        kind = "Sync" if chance.random() < 0.3 else "Bind"
        event = noise.mail_items_accessed(
            scene, victim, at, kind=kind, address=ATTACKER, folders=2, session=session["id"]
        )
        add(noise.EXCHANGE, at, event)
    for number in range(chance.randint(40, 60)):
        at += timedelta(seconds=chance.randint(1, 4))
        event = noise.file_event(
            scene,
            victim,
            at,
            operation="FileDownloaded",
            name=f"Contract {number:03d}.pdf",
            address=ATTACKER,
            agent=AGENT,
        )
        add(noise.SHAREPOINT, at, event)
    raised = created - timedelta(minutes=chance.randint(4, 9))
    add(noise.GENERAL, at, alert_triggered(scene, victim, rule_event, TITLE, at + timedelta(minutes=2)))
    return Takeover(events, hidden, _alert(scene, victim, hidden, start, at, raised), session)


def malicious_rule(scene: Scene) -> Doc:
    """A rule that sends mail about money outside and hides it."""
    return rule(
        scene.chance,
        ".",
        1,
        {"bodyOrSubjectContains": ["invoice", "payment", "password"]},
        {
            "delete": True,
            "markAsRead": True,
            "stopProcessingRules": True,
            "forwardTo": [{"emailAddress": {"name": OUTSIDE, "address": OUTSIDE}}],
        },
    )


def new_inbox_rule(
    scene: Scene, victim: Person, hidden: Doc, at: datetime, session: str, address: str = ATTACKER
) -> Doc:
    """The audit event of a rule that was made in Outlook on the web."""
    words = ";".join(hidden["conditions"]["bodyOrSubjectContains"])
    return scene.event(
        at,
        1,
        "New-InboxRule",
        "Exchange",
        ResultStatus="True",
        UserKey=victim.puid,
        UserType=2,
        ClientIP=f"{address}:{scene.chance.randint(20000, 60000)}",
        ObjectId=f"{victim.alias}\\.",
        UserId=victim.upn,
        AppId=noise.EXCHANGE_APP,
        ClientAppId="",
        ExternalAccess=False,
        OrganizationName=DOMAIN,
        OriginatingServer=scene.server(),
        Parameters=[
            {"Name": "AlwaysDeleteOutlookRulesBlob", "Value": "False"},
            {"Name": "Force", "Value": "False"},
            {"Name": "Name", "Value": "."},
            {"Name": "SubjectOrBodyContainsWords", "Value": words},
            {"Name": "ForwardTo", "Value": OUTSIDE},
            {"Name": "DeleteMessage", "Value": "True"},
            {"Name": "MarkAsRead", "Value": "True"},
            {"Name": "StopProcessingRules", "Value": "True"},
        ],
        SessionId=session,
    )


def alert_triggered(scene: Scene, victim: Person, cause: Doc, title: str, at: datetime) -> Doc:
    """What the compliance centre writes when an alert policy matches the event `cause`."""
    data = {
        "f3u": victim.upn,
        "op": cause["Operation"],
        "wl": cause["Workload"],
        "ts": cause["CreationTime"],
        "te": cause["CreationTime"],
        "tid": scene.tenant,
        "an": title,
        "sev": "High",
        "reid": cause["Id"],
    }
    return scene.event(
        at,
        40,
        "AlertTriggered",
        "SecurityComplianceCenter",
        ResultStatus="Succeeded",
        UserKey="SecurityComplianceAlerts",
        UserType=4,
        UserId="SecurityComplianceAlerts",
        ObjectId=guid(scene.chance),
        AlertId=guid(scene.chance),
        AlertLinks=[],
        AlertType="System",
        Category="ThreatManagement",
        Comments="New alert",
        Data=json.dumps(data),
        Name=title,
        PolicyId=guid(scene.chance),
        Severity="High",
        Source="Office 365 Security & Compliance",
        Status="Active",
    )


def _alert(
    scene: Scene, victim: Person, hidden: Doc, first: datetime, last: datetime, raised: datetime
) -> Doc:
    return {
        **alert(
            scene,
            title=TITLE,
            severity="high",
            status="new",
            category="DefenseEvasion",
            raised=raised,
            first=first,
            last=last,
        ),
        "description": "A suspicious inbox rule was set on a user's inbox. This may indicate that the user"
        " account is compromised, and that the mailbox is being used to hide or forward mail.",
        "evidence": [
            user_evidence(victim, raised, "compromised"),
            address_evidence(ATTACKER, raised),
            rule_evidence(victim, hidden, raised),
        ],
    }


def evidence(kind: str, raised: datetime, roles: list[str], **rest: Any) -> Doc:
    """A piece of evidence of an alert; `rest` is what its type adds."""
    return {
        "@odata.type": f"#microsoft.graph.security.{kind}",
        "createdDateTime": stamp(raised, 7),
        "verdict": "suspicious",
        "remediationStatus": "none",
        "remediationStatusDetails": None,
        "roles": roles,
        "detailedRoles": [],
        "tags": [],
        **rest,
    }


def user_evidence(person: Person, raised: datetime, *roles: str) -> Doc:
    """That a user takes part."""
    account = {
        "accountName": person.alias,
        "domainName": None,
        "userSid": None,
        "azureAdUserId": person.id,
        "userPrincipalName": person.upn,
        "displayName": person.name,
    }
    return evidence("userEvidence", raised, list(roles), userAccount=account, stream=None)


def address_evidence(address: str, raised: datetime) -> Doc:
    """That an address takes part."""
    return evidence(
        "ipEvidence", raised, [], ipAddress=address, countryLetterCode=None, location=None, stream=None
    )


def rule_evidence(person: Person, hidden: Doc, raised: datetime) -> Doc:
    """That an inbox rule takes part."""
    return evidence(
        "mailboxConfigurationEvidence",
        raised,
        [],
        mailboxPrimaryAddress=person.upn,
        externalDirectoryObjectId=person.id,
        configurationType="userInboxRule",
        configurationId=hidden["id"],
        displayName=hidden["displayName"],
        upn=person.upn,
    )


def device_evidence(device: Doc, machine: Doc, raised: datetime) -> Doc:
    """That a device takes part, by the ids of both services that can act on it."""
    name, _, domain = machine["computerDnsName"].partition(".")
    return evidence(
        "deviceEvidence",
        raised,
        ["compromised"],
        mdeDeviceId=machine["id"],
        azureAdDeviceId=device["deviceId"],
        deviceDnsName=machine["computerDnsName"],
        hostName=name,
        dnsDomain=domain,
        osPlatform=machine["osPlatform"],
        healthStatus="active",
        riskScore="high",
        onboardingStatus="onboarded",
        lastIpAddress=machine["lastIpAddress"],
        loggedOnUsers=[],
    )


def alert(
    scene: Scene,
    *,
    title: str,
    severity: str,
    status: str,
    category: str,
    raised: datetime,
    first: datetime,
    last: datetime,
    source: str = "microsoftDefenderForCloudApps",
    detection: str = "cloudAppSecurity",
    product: str = "Microsoft Defender for Cloud Apps",
) -> Doc:
    """An alert of `alerts_v2` without description and evidence."""
    number = scene.chance.getrandbits(40)
    return {
        "id": f"ca{number:012x}",
        "providerAlertId": f"{number:012x}",
        "incidentId": str(scene.chance.randint(20, 900)),
        "status": status,
        "severity": severity,
        "classification": "informationalExpectedActivity" if status == "resolved" else None,
        "determination": "confirmedActivity" if status == "resolved" else None,
        "serviceSource": source,
        "detectionSource": detection,
        "productName": product,
        "detectorId": None,
        "tenantId": scene.tenant,
        "title": title,
        "description": title,
        "recommendedActions": "1. Verify with the user.\r\n2. Disable the account when in doubt.",
        "category": category,
        "assignedTo": None,
        "alertWebUrl": f"https://security.microsoft.com/alerts/ca{number:012x}?tid={scene.tenant}",
        "incidentWebUrl": None,
        "actorDisplayName": None,
        "threatDisplayName": None,
        "threatFamilyName": None,
        "mitreTechniques": ["T1564.008"] if category == "DefenseEvasion" else [],
        "createdDateTime": stamp(raised, 7),
        "lastUpdateDateTime": stamp(raised + timedelta(seconds=41), 7),
        "resolvedDateTime": stamp(raised + timedelta(seconds=41), 7) if status == "resolved" else None,
        "firstActivityDateTime": stamp(first),
        "lastActivityDateTime": stamp(last),
        "comments": [],
        "systemTags": [],
        "alertPolicyId": None,
        "additionalData": None,
        "evidence": [],
    }
