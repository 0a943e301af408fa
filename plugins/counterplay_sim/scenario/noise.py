"""A day of ordinary audit events, in the shapes and proportions of a real log.

Shapes, names and their traps (a `Parameters` that is a string on compliance cmdlets, an
`OriginatingServer` that ends in CR LF, en dashes in operation names) are those of exported records.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from counterplay_sim.scenario.cast import DOMAIN, Person, guid, opaque

Doc = dict[str, Any]

EXCHANGE = "Audit.Exchange"
ENTRA = "Audit.AzureActiveDirectory"
SHAREPOINT = "Audit.SharePoint"
GENERAL = "Audit.General"
DLP = "DLP.All"
CONTENT_TYPES = (ENTRA, EXCHANGE, SHAREPOINT, GENERAL, DLP)

EXCHANGE_APP = "00000002-0000-0ff1-ce00-000000000000"
_SERVERS = "AM0PR04MB{0:04d} (15.20.7692.{1:03d})"
_FILES = (
    "Budget 2026.xlsx",
    "Angebot – Müller & Söhne.docx",
    'Q3 "final" (2).pptx',
    "Отчёт.pdf",
    "契約書.pdf",
    "roadmap.md",
    "customers.csv",
    "C:\\temp\\copy.txt",
)
_SUBJECTS = (
    "Re: Offer",
    "Invitation: weekly sync",
    "Überweisung offen",
    'RE: "urgent" – please read',
    "Lunch? 🍜",
    "Monthly numbers",
)


@dataclass(slots=True)
class Scene:
    """What an event's writer may draw on."""

    chance: random.Random
    tenant: str
    people: list[Person]

    def event(self, at: datetime, record_type: int, operation: str, workload: str, **rest: Any) -> Doc:
        """An event with the members that all have; `rest` overrides and adds."""
        return {
            "CreationTime": at.strftime("%Y-%m-%dT%H:%M:%S"),
            "Id": guid(self.chance),
            "Operation": operation,
            "OrganizationId": self.tenant,
            "RecordType": record_type,
            "UserKey": "",
            "UserType": 0,
            "Version": 1,
            "Workload": workload,
            **rest,
        }

    def server(self) -> str:
        """A server name as Exchange writes it."""
        return _SERVERS.format(self.chance.randint(1, 9999), self.chance.randint(1, 60))


Writer = Callable[[Scene, Person, datetime], Doc]


def system_set_mailbox(scene: Scene, person: Person, at: datetime) -> Doc:
    """Microsoft's own mailbox upkeep, the bulk of the Exchange log."""
    cmdlet = scene.chance.choice(
        ("Set-Mailbox", "Set-Mailbox", "Set-User", "Set-MailboxPlan", "Add-MailboxPermission")
    )
    return scene.event(
        at,
        1,
        cmdlet,
        "Exchange",
        ResultStatus="True",
        UserKey="NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)",
        UserType=3,
        ObjectId="EURPR04A001.PROD.OUTLOOK.COM/Microsoft Exchange Hosted Organizations/"
        f"{DOMAIN}/{person.name}",
        UserId="NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)",
        AppId="",
        ClientAppId="",
        ExternalAccess=True,
        ModifiedObjectResolvedName=person.name,
        OrganizationName=DOMAIN,
        OriginatingServer=scene.server(),
        Parameters=[
            {"Name": "Identity", "Value": f"{DOMAIN}\\{person.id}"},
            {"Name": "DomainController", "Value": "AM4EURPR04.A001.prod.outlook.com"},
            {"Name": "EmailAddresses", "Value": f"SMTP:{person.upn};SIP:{person.upn}"},
            {"Name": "RecalculateInactiveMailbox", "Value": "True"},
            {"Name": "ExternalDirectoryObjectId", "Value": person.id},
            {
                "Name": "LegacyExchangeDN",
                "Value": "/o=ExchangeLabs/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)"
                f"/cn=Recipients/cn={person.mailbox.replace('-', '')}-{person.alias}",
            },
            {
                "Name": "MailboxMoveTargetMDB",
                "Value": f"EURPR04DG{scene.chance.randint(1, 999):03d}-db{scene.chance.randint(1, 99):03d}",
            },
            {"Name": "Force", "Value": "True"},
        ],
        SessionId="",
    )


def sign_in(
    scene: Scene,
    person: Person,
    at: datetime,
    *,
    error: str = "0",
    address: str | None = None,
    agent: str | None = None,
    session: str | None = None,
) -> Doc:
    """A sign-in, or with an `error` number an attempt at one."""
    failed = error not in ("0", "50140")
    client = address or person.address
    request = guid(scene.chance)
    app = scene.chance.choice(
        (EXCHANGE_APP, "00000003-0000-0ff1-ce00-000000000000", "5e3ce6c0-2b1f-4285-8d4b-75ee78787346")
    )
    detail = "UserError" if failed else "Redirect"
    return scene.event(
        at,
        15,
        "UserLoginFailed" if failed else "UserLoggedIn",
        "AzureActiveDirectory",
        ResultStatus="Success",
        UserKey=person.id,
        ClientIP=client,
        ObjectId=app,
        UserId=person.upn,
        AzureActiveDirectoryEventType=1,
        ExtendedProperties=[
            {"Name": "ResultStatusDetail", "Value": detail},
            {"Name": "UserAgent", "Value": agent or person.agent},
            {"Name": "RequestType", "Value": "OAuth2:Authorize"},
        ],
        ModifiedProperties=[],
        Actor=[{"ID": person.id, "Type": 0}, {"ID": person.upn, "Type": 5}],
        ActorContextId=scene.tenant,
        ActorIpAddress=client,
        InterSystemsId=guid(scene.chance),
        IntraSystemId=request,
        SupportTicketId="",
        Target=[{"ID": app, "Type": 0}],
        TargetContextId=scene.tenant,
        ApplicationId="4765445b-32c6-49b0-83e6-1d93765276ca",
        DeviceProperties=[
            {"Name": "OS", "Value": "Windows 10"},
            {"Name": "BrowserType", "Value": "Edge"},
            {"Name": "IsCompliantAndManaged", "Value": "False"},
            {
                "Name": "SessionId",
                "Value": session or (person.sessions[0]["id"] if person.sessions else request),
            },
        ],
        ErrorNumber=error,
        **({"LogonError": "InvalidUserNameOrPassword"} if failed else {}),
    )


def _ordinary_sign_in(scene: Scene, person: Person, at: datetime) -> Doc:
    error = scene.chance.choices(("0", "50140", "50126"), weights=(85, 8, 7))[0]
    return sign_in(scene, person, at, error=error)


def mail_items_accessed(
    scene: Scene,
    person: Person,
    at: datetime,
    *,
    kind: str = "Bind",
    address: str | None = None,
    folders: int = 1,
    session: str = "",
) -> Doc:
    """Mail was read: `Bind` names the messages (record type 50), `Sync` a folder (record type 2)."""
    listed = [
        {
            "FolderItems": [
                {"InternetMessageId": f"<{guid(scene.chance)}@{DOMAIN}>"}
                for _ in range(scene.chance.randint(1, 4))
            ],
            "Id": opaque(scene.chance, 152),
            "Path": path,
        }
        for path in ("\\Inbox", "\\Sent Items", "\\Archive")[:folders]
    ]
    content: Doc = (
        {"Folders": listed, "OperationCount": sum(len(f["FolderItems"]) for f in listed)}
        if kind == "Bind"
        else {
            "Item": {
                "Id": opaque(scene.chance, 152),
                "ParentFolder": {"Id": listed[0]["Id"], "Path": "\\Inbox"},
            }
        }
    )
    return scene.event(
        at,
        50 if kind == "Bind" else 2,
        "MailItemsAccessed",
        "Exchange",
        ResultStatus="Succeeded",
        UserKey=person.puid,
        UserId=person.upn,
        AppId="8a18aa92-0000-4e06-abd0-e118fa4787b1",
        ClientAppId="",
        ClientIPAddress=address or person.address,
        ClientInfoString="Client=REST;Client=RESTSystem;;",
        ExternalAccess=False,
        InternalLogonType=0,
        LogonType=0,
        LogonUserSid=f"S-1-5-21-3151571120-{int(person.puid[-7:], 16)}",
        MailboxGuid=person.mailbox,
        MailboxOwnerSid=f"S-1-5-21-3151571120-{int(person.puid[-7:], 16)}",
        MailboxOwnerUPN=person.upn,
        OperationProperties=[
            {"Name": "MailAccessType", "Value": kind},
            {"Name": "IsThrottled", "Value": "False"},
        ],
        OrganizationName=DOMAIN,
        OriginatingServer=f"{scene.server()}\r\n",
        SessionId=session or (person.sessions[0]["id"] if person.sessions else ""),
        **content,
    )


def _ordinary_mail_access(scene: Scene, person: Person, at: datetime) -> Doc:
    kind = scene.chance.choices(("Bind", "Sync"), weights=(80, 20))[0]
    return mail_items_accessed(scene, person, at, kind=kind)


def sent_mail(scene: Scene, person: Person, at: datetime) -> Doc:
    """A message left a mailbox."""
    return scene.event(
        at,
        2,
        "Send",
        "Exchange",
        ResultStatus="Succeeded",
        UserKey=person.puid,
        UserId=person.upn,
        ClientIP=person.address,
        ClientIPAddress=person.address,
        ClientInfoString="Client=OWA;Action=ViaProxy",
        ExternalAccess=False,
        InternalLogonType=0,
        LogonType=0,
        MailboxGuid=person.mailbox,
        MailboxOwnerUPN=person.upn,
        OrganizationName=DOMAIN,
        OriginatingServer=f"{scene.server()}\r\n",
        Item={
            "Id": "Unknown",
            "InternetMessageId": f"<{guid(scene.chance)}@{DOMAIN}>",
            "ParentFolder": {"Id": opaque(scene.chance, 152), "Path": "\\Drafts"},
            "SizeInBytes": scene.chance.randint(4000, 90000),
            "Subject": scene.chance.choice(_SUBJECTS),
            "Attachments": f"{scene.chance.choice(_FILES)} ({scene.chance.randint(900, 90000)}b)",
        },
        SessionId=person.sessions[0]["id"] if person.sessions else "",
    )


def deleted_mail(scene: Scene, person: Person, at: datetime) -> Doc:
    """Messages were moved to the deleted items, or beyond."""
    return scene.event(
        at,
        3,
        scene.chance.choice(("MoveToDeletedItems", "SoftDelete", "HardDelete")),
        "Exchange",
        ResultStatus="Succeeded",
        UserKey=person.puid,
        UserId=person.upn,
        ClientIPAddress=person.address,
        ClientInfoString="Client=MSExchangeRPC",
        ClientProcessName="OUTLOOK.EXE",
        ClientVersion="16.0.17726.20160",
        ExternalAccess=False,
        InternalLogonType=0,
        LogonType=0,
        MailboxGuid=person.mailbox,
        MailboxOwnerUPN=person.upn,
        OrganizationName=DOMAIN,
        OriginatingServer=f"{scene.server()}\r\n",
        AffectedItems=[
            {
                "Attachments": "",
                "Id": opaque(scene.chance, 152),
                "InternetMessageId": f"<{guid(scene.chance)}@{DOMAIN}>",
                "ParentFolder": {"Id": opaque(scene.chance, 152), "Path": "\\Inbox"},
                "Subject": scene.chance.choice(_SUBJECTS),
            }
        ],
        CrossMailboxOperation=False,
        Folder={"Id": opaque(scene.chance, 152), "Path": "\\Inbox"},
    )


_DIRECTORY = (
    ("Update user.", "User"),
    ("Add member to group.", "Group"),
    ("Update device.", "Device"),
    ("Change user license.", "User"),
    ("Add service principal.", "ServicePrincipal"),
    ("Update application – Certificates and secrets management ", "Application"),
)


def directory(scene: Scene, person: Person, at: datetime, operation: str | None = None) -> Doc:
    """A change in the directory."""
    kind = "Application"
    if operation is None:
        operation, kind = scene.chance.choices(_DIRECTORY, weights=(40, 20, 20, 12, 7, 1))[0]
    admin = scene.people[min(1, len(scene.people) - 1)]
    details = json.dumps({"User-Agent": admin.agent})
    return scene.event(
        at,
        8,
        operation,
        "AzureActiveDirectory",
        ResultStatus="Success",
        UserKey=f"{admin.puid}@{DOMAIN}",
        ObjectId=person.upn,
        UserId=admin.upn,
        ClientIP=admin.address if scene.chance.random() < 0.3 else "",
        AzureActiveDirectoryEventType=1,
        ExtendedProperties=[
            {"Name": "additionalDetails", "Value": details},
            {"Name": "extendedAuditEventCategory", "Value": kind},
        ],
        ModifiedProperties=[
            {
                "Name": "Included Updated Properties",
                "NewValue": json.dumps(["DisplayName", "AssignedLicense"], indent=2).replace("\n", "\r\n"),
                "OldValue": "[]",
            },
            {"Name": "TargetId.UserType", "NewValue": "Member", "OldValue": ""},
        ],
        Actor=[
            {"ID": admin.upn, "Type": 5},
            {"ID": admin.puid, "Type": 3},
            {"ID": f"User_{admin.id}", "Type": 2},
            {"ID": admin.id, "Type": 2},
        ],
        ActorContextId=scene.tenant,
        InterSystemsId=guid(scene.chance),
        IntraSystemId=guid(scene.chance),
        SupportTicketId="",
        Target=[
            {"ID": f"User_{person.id}", "Type": 2},
            {"ID": person.upn, "Type": 5},
            {"ID": "User", "Type": 2},
        ],
        TargetContextId=scene.tenant,
    )


def file_event(
    scene: Scene,
    person: Person,
    at: datetime,
    *,
    operation: str | None = None,
    name: str | None = None,
    address: str | None = None,
    agent: str | None = None,
) -> Doc:
    """Somebody worked with a file."""
    operation = (
        operation
        or scene.chance.choices(
            ("FileAccessed", "FileModified", "FilePreviewed", "FileDownloaded", "FileSyncDownloadedFull"),
            weights=(50, 20, 15, 8, 7),
        )[0]
    )
    name = name or scene.chance.choice(_FILES)
    site = scene.chance.choice(("Finance", "Engineering", "Sales"))
    address_of_site = f"https://contoso.sharepoint.example/sites/{site}/"
    return scene.event(
        at,
        6,
        operation,
        scene.chance.choice(("SharePoint", "OneDrive")),
        UserKey=f"i:0h.f|membership|{person.puid.lower()}@live.com",
        ClientIP=address or person.address,
        ObjectId=f"{address_of_site}Shared Documents/{name}",
        UserId=person.upn,
        ApplicationDisplayName="Office 365 SharePoint Online",
        ApplicationId="08e18876-6177-487e-b8b5-cf950c1e598c",
        CorrelationId=guid(scene.chance),
        EventSource="SharePoint",
        ItemType="File",
        ListId=guid(scene.chance),
        ListItemUniqueId=guid(scene.chance),
        Site=guid(scene.chance),
        SiteUrl=address_of_site,
        SourceFileExtension=name.rpartition(".")[2],
        SourceFileName=name,
        SourceRelativeUrl="Shared Documents",
        FileSizeBytes=scene.chance.randint(900, 9_000_000),
        UserAgent=agent or person.agent,
        WebId=guid(scene.chance),
        HighPriorityMediaProcessing=False,
        DoNotDistributeEvent=False,
    )


def sharing(scene: Scene, person: Person, at: datetime) -> Doc:
    """A permission on a site was given; `EventData` is no legal XML, as on the wire."""
    return scene.event(
        at,
        14,
        scene.chance.choice(("SharingSet", "AddedToGroup", "SharingInheritanceBroken")),
        "SharePoint",
        UserKey=f"i:0h.f|membership|{person.puid.lower()}@live.com",
        ClientIP=person.address,
        ObjectId="https://contoso.sharepoint.example/sites/Sales/Shared Documents/Offer.docx",
        UserId=person.upn,
        CorrelationId=guid(scene.chance),
        EventSource="SharePoint",
        EventData="<Permissions granted>Contribute</Permissions granted>",
        ItemType="File",
        Site=guid(scene.chance),
        SiteUrl="https://contoso.sharepoint.example/sites/Sales",
        TargetUserOrGroupName=scene.chance.choice(scene.people).upn,
        TargetUserOrGroupType="Member",
        UniqueSharingId=guid(scene.chance),
        UserAgent=person.agent,
        WebId=guid(scene.chance),
    )


def teams(scene: Scene, person: Person, at: datetime) -> Doc:
    """Something happened in Teams."""
    return scene.event(
        at,
        25,
        scene.chance.choice(
            ("TeamsSessionStarted", "MessageSent", "MemberAdded", "MeetingDetail", "ChatCreated")
        ),
        "MicrosoftTeams",
        UserKey=person.id,
        UserId=person.upn,
        ClientIP=person.address,
        CommunicationType="GroupChat",
        ChatThreadId=f"19:{scene.chance.getrandbits(128):032x}@thread.v2",
        ExtraProperties=[
            {"Key": "TimeZone", "Value": "Europe/Berlin"},
            {"Key": "OsName", "Value": "windows"},
            {"Key": "ClientUtcOffsetSeconds", "Value": "7200"},
        ],
        Members=[
            {"UPN": other.upn, "Role": 0, "DisplayName": other.name}
            for other in scene.chance.sample(scene.people, min(3, len(scene.people)))
        ],
        AADGroupId=guid(scene.chance),
        TeamGuid=f"19:{scene.chance.getrandbits(128):032x}@thread.skype",
        TeamName=f"Team „{person.doc.get('department', 'All')}“",
        ItemName=scene.chance.choice(_SUBJECTS),
    )


def compliance_cmdlet(scene: Scene, person: Person, at: datetime) -> Doc:
    """A Security & Compliance cmdlet: its `Parameters` is one string."""
    return scene.event(
        at,
        18,
        scene.chance.choice(("Get-RetentionCompliancePolicy", "Get-DlpCompliancePolicy", "Get-Label")),
        "SecurityComplianceCenter",
        ResultStatus="Success",
        UserKey=person.puid,
        UserType=2,
        ObjectId="",
        UserId=person.upn,
        ClientApplication="EMC",
        ClientRequestId=guid(scene.chance),
        CmdletVersion="v1.0",
        EffectiveOrganization=DOMAIN,
        NonPIIParameters='-ResultSize:"Unlimited"',
        Parameters=f'-ResultSize "Unlimited" -Identity "{person.upn}"',
        SecurityComplianceCenterEventType=0,
        StartTime=at.strftime("%Y-%m-%dT%H:%M:%S"),
        UserServicePlan="",
    )


def dlp_match(scene: Scene, person: Person, at: datetime) -> Doc:
    """A data loss prevention rule matched a message."""
    return scene.event(
        at,
        13,
        "DlpRuleMatch",
        "Exchange",
        UserKey="DlpAgent",
        UserType=4,
        ObjectId=f"<{guid(scene.chance)}@{DOMAIN}>",
        UserId=person.upn,
        IncidentId=guid(scene.chance),
        SensitiveInfoDetectionIsIncluded=True,
        ExchangeMetaData={
            "From": person.upn,
            "To": [f"partner{scene.chance.randint(1, 9)}@fabrikam.example"],
            "MessageID": f"<{guid(scene.chance)}@{DOMAIN}>",
            "Subject": scene.chance.choice(_SUBJECTS),
            "RecipientCount": 1,
            "FileSize": scene.chance.randint(2000, 90000),
        },
        PolicyDetails=[
            {
                "PolicyId": guid(scene.chance),
                "PolicyName": "Payment data",
                "Rules": [
                    {
                        "RuleId": guid(scene.chance),
                        "RuleName": "Card numbers leave the company",
                        "Actions": ["NotifyUser"],
                        "Severity": scene.chance.choice(("Low", "Medium")),
                        "RuleMode": "Enable",
                        "ConditionsMatched": {
                            "SensitiveInformation": [
                                {
                                    "SensitiveType": "50842eb7-edc8-4019-85dd-5a5c1f2bb085",
                                    "SensitiveInformationTypeName": "Credit Card Number",
                                    "Confidence": 85,
                                    "Count": 1,
                                    "UniqueCount": 1,
                                    "SensitiveInformationDetections": {
                                        "DetectedValues": [
                                            {"Name": "4111 1111 1111 1111", "Value": "card 4111…"}
                                        ]
                                    },
                                }
                            ]
                        },
                    }
                ],
            }
        ],
    )


#: Each kind of event: its content type, its share of a day, and who writes it.
KINDS: tuple[tuple[str, float, Writer], ...] = (
    (EXCHANGE, 34, system_set_mailbox),
    (ENTRA, 17, _ordinary_sign_in),
    (EXCHANGE, 14, _ordinary_mail_access),
    (EXCHANGE, 3, sent_mail),
    (EXCHANGE, 3, deleted_mail),
    (ENTRA, 7, directory),
    (SHAREPOINT, 10, file_event),
    (SHAREPOINT, 2, sharing),
    (GENERAL, 6, teams),
    (GENERAL, 3, compliance_cmdlet),
    (DLP, 1, dlp_match),
)
