"""Scripted attacks, each with its ground truth: what happened, what was detected, what is the attacker's.

A chain is played on one victim of its own and ends minutes before the tenant's creation. What it writes
into the audit log, into Graph's objects and into the truth goes through a `Story`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.scenario import noise, shapes, takeover
from counterplay_sim.scenario.cast import DOMAIN, Person, guid, rule
from counterplay_sim.scenario.directory import principal_of
from counterplay_sim.scenario.noise import Scene

Doc = dict[str, Any]

_SCOPES = "Mail.ReadWrite Mail.Send offline_access User.Read"
_TOOL = "python-requests/2.31.0"


@dataclass(slots=True)
class Story:
    """What a chain leaves behind. `events` are `(content type, when, event)`; `objects` go by kind and id.

    The lists of ids below `address` say what is the attacker's; everything else is harmless.
    """

    name: str
    scene: Scene
    victims: list[Person]
    address: str
    events: list[tuple[str, datetime, Doc]] = field(default_factory=list)
    objects: dict[str, list[Doc]] = field(default_factory=dict)
    alert: Doc | None = None
    incident: Doc | None = None
    sessions: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)
    service_principals: list[str] = field(default_factory=list)
    authentication_methods: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    forwarding: str = ""

    @property
    def victim(self) -> Person:
        """Who was taken over: the first of those that were attacked."""
        return self.victims[0]

    def log(self, content_type: str, at: datetime, event: Doc) -> Doc:
        """Write an event of the attack into the audit log."""
        self.events.append((content_type, at, event))
        return event

    def put(self, kind: str, document: Doc) -> Doc:
        """Add an object of Graph."""
        self.objects.setdefault(kind, []).append(document)
        return document

    def sign_in(self, person: Person, at: datetime, error: int = 0, **about: Any) -> Doc:
        """A sign-in from the attacker's network, in the audit log and in Graph."""
        address = about.pop("address", self.address)
        agent = about.pop("agent", takeover.AGENT)
        session = about.pop("session", None)
        event = noise.sign_in(
            self.scene, person, at, error=str(error), address=address, agent=agent, session=session
        )
        self.log(noise.ENTRA, at, event)
        return self.put(
            "signIn",
            shapes.sign_in(
                self.scene, person, at, error=error, address=address, agent=agent, where=shapes.AWAY, **about
            ),
        )

    def session(self, person: Person, at: datetime) -> str:
        """A live session of the attacker."""
        made = {"id": guid(self.scene.chance), "issued": stamp(at), "ip": self.address}
        person.sessions.append(made)
        self.sessions.append(made["id"])
        return made["id"]

    def change(
        self, actor: Person, at: datetime, operation: str, target: Doc, changed: dict[str, str], kind: str
    ) -> Doc:
        """A directory change by a user, in the audit log and in Graph's directory audits."""
        scene = self.scene
        properties = [{"Name": name, "NewValue": value, "OldValue": ""} for name, value in changed.items()]
        event = scene.event(
            at,
            8,
            operation,
            "AzureActiveDirectory",
            ResultStatus="Success",
            UserKey=f"{actor.puid}@{DOMAIN}",
            ObjectId=target["id"],
            UserId=actor.upn,
            ClientIP=self.address,
            AzureActiveDirectoryEventType=1,
            ExtendedProperties=[
                {"Name": "additionalDetails", "Value": json.dumps({"User-Agent": takeover.AGENT})},
                {"Name": "extendedAuditEventCategory", "Value": kind},
            ],
            ModifiedProperties=properties,
            Actor=[{"ID": actor.upn, "Type": 5}, {"ID": actor.puid, "Type": 3}, {"ID": actor.id, "Type": 2}],
            ActorContextId=scene.tenant,
            InterSystemsId=guid(scene.chance),
            IntraSystemId=guid(scene.chance),
            SupportTicketId="",
            Target=[
                {"ID": f"{kind}_{target['id']}", "Type": 2},
                {"ID": target["id"], "Type": 2},
                {"ID": kind, "Type": 2},
                {"ID": str(target.get("displayName") or target.get("userPrincipalName") or ""), "Type": 1},
            ],
            TargetContextId=scene.tenant,
        )
        self.log(noise.ENTRA, at, event)
        shown = [{"displayName": p["Name"], "oldValue": None, "newValue": p["NewValue"]} for p in properties]
        about = {
            "id": target["id"],
            "type": kind,
            "displayName": target.get("displayName"),
            "userPrincipalName": target.get("userPrincipalName"),
        }
        category = "ApplicationManagement" if kind == "ServicePrincipal" else "UserManagement"
        self.put(
            "directoryAudit",
            shapes.directory_audit(
                scene,
                actor,
                at,
                operation.rstrip("."),
                category=category,
                address=self.address,
                target=about,
                changed=shown,
            ),
        )
        return event

    def raise_alert(
        self, at: datetime, title: str, *, category: str, evidence: list[Doc], description: str = ""
    ) -> Doc:
        """The alert of the attack, and its incident."""
        made = takeover.alert(
            self.scene,
            title=title,
            severity="high",
            status="new",
            category=category,
            raised=at,
            first=self.events[0][1],
            last=self.events[-1][1],
        )
        made["description"] = description or title
        made["evidence"] = [
            *(takeover.user_evidence(victim, at, "compromised") for victim in self.victims[:1]),
            takeover.address_evidence(self.address, at),
            *evidence,
        ]
        self.adopt(made, f"{title} involving one user", at)
        return made

    def adopt(self, alert: Doc, name: str, at: datetime) -> None:
        """Take an alert as that of this attack."""
        self.alert = alert
        self.incident = self.put("incident", shapes.incident(self.scene, alert, name, at))
        self.put("alert", alert)

    def risk(self, at: datetime, kind: str, level: str = "high", request: str = "") -> None:
        """What Identity Protection makes of it."""
        self.put(
            "riskDetection",
            shapes.risk_detection(
                self.scene, self.victim, at, kind, level=level, address=self.address, request=request
            ),
        )
        self.put("riskyUser", shapes.risky_user(self.victim, at, level))

    def truth(self) -> Doc:
        """What only the oracle knows of it."""
        return {
            "scenario": self.name,
            "victim": self.victim.id,
            "victim_upn": self.victim.upn,
            "attacked": [person.upn for person in self.victims],
            "attacker": self.address,
            "events": [event["Id"] for _, _, event in self.events],
            "alert": self.alert["id"] if self.alert else None,
            "incident": self.incident["id"] if self.incident else None,
            "sessions": self.sessions,
            "malicious_rules": self.rules,
            "grants": self.grants,
            "service_principals": self.service_principals,
            "authentication_methods": self.authentication_methods,
            "devices": self.devices,
            "forwarding": self.forwarding,
        }


def account_takeover(story: Story, created: datetime) -> None:
    """A guessed password, a rule called `.` that hides mail, mailbox and share read empty."""
    victim = story.victim
    attack = takeover.take_over(story.scene, victim, created)
    victim.rules.insert(0, attack.rule)
    victim.sessions.append(attack.session)
    story.rules.append(attack.rule["id"])
    story.sessions.append(attack.session["id"])
    story.address = takeover.ATTACKER
    for content_type, at, event in attack.events:
        story.log(content_type, at, event)
        if event["Operation"] in ("UserLoginFailed", "UserLoggedIn"):
            error = int(event["ErrorNumber"])
            risk = "none" if error else "high"
            sign_in = story.put(
                "signIn",
                shapes.sign_in(
                    story.scene,
                    victim,
                    at,
                    error=error,
                    address=story.address,
                    agent=takeover.AGENT,
                    where=shapes.AWAY,
                    risk=risk,
                ),
            )
            if not error:
                story.risk(at, "unfamiliarFeatures", request=sign_in["id"])
    story.adopt(attack.alert, f"{takeover.TITLE} involving one user", created - timedelta(minutes=4))


def business_email_compromise(story: Story, created: datetime) -> None:
    """A phished password; a rule that hides answers, the mailbox forwarded, mail sent as the victim."""
    scene, victim = story.scene, story.victim
    at = created - timedelta(hours=4, minutes=scene.chance.randint(0, 30))
    story.sign_in(victim, at, risk="medium")
    session = story.session(victim, at)
    hidden = rule(
        scene.chance,
        "..",
        1,
        {"bodyOrSubjectContains": ["bank details", "wire", "invoice"]},
        {"moveToFolder": "rss feeds", "markAsRead": True, "stopProcessingRules": True},
    )
    victim.rules.insert(0, hidden)
    story.rules.append(hidden["id"])
    at += timedelta(minutes=7)
    cause = takeover.new_inbox_rule(scene, victim, hidden, at, session, story.address)
    cause["Parameters"] = [
        {"Name": "Name", "Value": ".."},
        {"Name": "SubjectOrBodyContainsWords", "Value": "bank details;wire;invoice"},
        {"Name": "MoveToFolder", "Value": "RSS Feeds"},
        {"Name": "MarkAsRead", "Value": "True"},
        {"Name": "StopProcessingRules", "Value": "True"},
    ]
    story.log(noise.EXCHANGE, at, cause)
    at += timedelta(minutes=2)
    story.forwarding = takeover.OUTSIDE
    forward = {**cause, "Id": guid(scene.chance), "Operation": "Set-Mailbox", "ObjectId": victim.alias}
    forward["CreationTime"] = at.strftime("%Y-%m-%dT%H:%M:%S")
    forward["Parameters"] = [
        {"Name": "Identity", "Value": victim.upn},
        {"Name": "ForwardingSmtpAddress", "Value": f"smtp:{takeover.OUTSIDE}"},
        {"Name": "DeliverToMailboxAndForward", "Value": "True"},
    ]
    story.log(noise.EXCHANGE, at, forward)
    for _ in range(scene.chance.randint(10, 16)):
        at += timedelta(seconds=scene.chance.randint(20, 90))
        story.log(
            noise.EXCHANGE,
            at,
            noise.mail_items_accessed(scene, victim, at, address=story.address, folders=2, session=session),
        )
    for number in range(3):
        at += timedelta(minutes=3)
        sent = noise.sent_mail(scene, victim, at)
        sent.update(ClientIP=story.address, ClientIPAddress=story.address, SessionId=session)
        sent["Item"]["Subject"] = f"RE: Invoice {20481 + number}: our new bank details"
        story.log(noise.EXCHANGE, at, sent)
    story.log(
        noise.GENERAL, at, takeover.alert_triggered(scene, victim, forward, "Email forwarding created", at)
    )
    story.risk(at, "mcasSuspiciousInboxManipulationRules", "medium")
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    story.raise_alert(
        raised,
        "Suspicious inbox forwarding",
        category="Collection",
        evidence=[takeover.rule_evidence(victim, hidden, raised)],
    )


def aitm_token_theft(story: Story, created: datetime) -> None:
    """One session from two networks: the victim signs in through a proxy, the attacker replays the cookie."""
    scene, victim = story.scene, story.victim
    at = created - timedelta(hours=2, minutes=scene.chance.randint(10, 40))
    session = story.session(victim, at)
    first = story.sign_in(
        victim,
        at,
        agent=victim.agent,
        session=session,
        risk="medium",
        detail="MFA requirement satisfied by claim in the token",
    )
    proxy, story.address = story.address, "203.0.113.140"
    at += timedelta(minutes=6)
    story.sign_in(
        victim, at, session=session, risk="high", detail="MFA requirement satisfied by claim in the token"
    )
    at += timedelta(minutes=5)
    method = story.put("authenticationMethod", shapes.authenticator(scene, victim, at, "Galaxy S9"))
    story.authentication_methods.append(method["id"])
    about = {"id": victim.id, "displayName": None, "userPrincipalName": victim.upn}
    story.change(
        victim,
        at,
        "User registered security info",
        about,
        {"StrongAuthenticationPhoneAppDetail": json.dumps([{"DeviceName": "Galaxy S9"}])},
        "User",
    )
    at += timedelta(minutes=3)
    device = story.put("device", shapes.device(scene, victim, at, "DESKTOP-7Q2M1", "Windows"))
    story.devices.append(device["id"])
    story.change(
        victim, at, "Register device.", device, {"Included Updated Properties": '"DisplayName"'}, "Device"
    )
    for _ in range(scene.chance.randint(15, 22)):
        at += timedelta(seconds=scene.chance.randint(10, 50))
        story.log(
            noise.EXCHANGE,
            at,
            noise.mail_items_accessed(scene, victim, at, address=story.address, folders=2, session=session),
        )
    story.risk(at, "attackerinTheMiddle", request=first["id"])
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    story.raise_alert(
        raised,
        "User compromised in AiTM phishing attack",
        category="CredentialAccess",
        evidence=[takeover.address_evidence(proxy, raised)],
    )


def malicious_oauth_consent(story: Story, created: datetime) -> None:
    """The victim lets a foreign application read and send mail; it does so without any sign-in."""
    scene, victim = story.scene, story.victim
    at = created - timedelta(hours=3, minutes=scene.chance.randint(0, 40))
    app_id, graph = guid(scene.chance), principal_of(scene.tenant, shapes.GRAPH_APP)
    app = story.put(
        "servicePrincipal",
        shapes.service_principal(scene, app_id, "Mail Archive Pro", "mailarchive.example", at),
    )
    story.service_principals.append(app["id"])
    given = story.put("oauth2PermissionGrant", shapes.grant(scene, app["id"], victim, graph, _SCOPES))
    story.grants.append(given["id"])
    about = {"id": app["id"], "displayName": app["displayName"]}
    story.change(
        victim, at, "Add service principal.", about, {"AppId": json.dumps([app_id])}, "ServicePrincipal"
    )
    at += timedelta(seconds=2)
    story.change(
        victim,
        at,
        "Add delegated permission grant.",
        about,
        {"DelegatedPermissionGrant.Scope": f'" {_SCOPES}"'},
        "ServicePrincipal",
    )
    at += timedelta(seconds=1)
    cause = story.change(
        victim,
        at,
        "Consent to application.",
        about,
        {
            "ConsentContext.IsAdminConsent": "False",
            "ConsentContext.OnBehalfOfAll": "False",
            "ConsentAction.Permissions": f"[] => [[Id: {given['id']}, ClientId: {app['id']},"
            f" PrincipalId: {victim.id}, ResourceId: {graph}, ConsentType: Principal, Scope: {_SCOPES}]]; ",
        },
        "ServicePrincipal",
    )
    for _ in range(scene.chance.randint(20, 30)):
        at += timedelta(seconds=scene.chance.randint(5, 40))
        event = noise.mail_items_accessed(scene, victim, at, address=story.address, folders=2)
        event.update(AppId=app_id, ClientAppId=app_id, ClientInfoString=f"Client=REST;;{_TOOL}", SessionId="")
        story.log(noise.EXCHANGE, at, event)
    story.log(
        noise.GENERAL,
        at,
        takeover.alert_triggered(scene, victim, cause, "Malicious OAuth app consent", at),
    )
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    story.raise_alert(
        raised,
        "Malicious OAuth app consent",
        category="Persistence",
        evidence=[
            takeover.evidence(
                "cloudApplicationEvidence",
                raised,
                [],
                appId=20893,
                displayName=app["displayName"],
                instanceId=0,
                instanceName="Microsoft 365",
                saasAppId=11161,
                stream=None,
            ),
            takeover.evidence(
                "oauthApplicationEvidence",
                raised,
                [],
                appId=app_id,
                displayName=app["displayName"],
                objectId=app["id"],
                publisher="mailarchive.example",
            ),
        ],
    )


def password_spray(story: Story, created: datetime) -> None:
    """One password tried on everybody, twice; it is the victim's."""
    scene = story.scene
    others = [person for person in scene.people if person is not story.victim]
    story.victims += scene.chance.sample(others, min(24, len(others)))
    at = created - timedelta(hours=5, minutes=scene.chance.randint(0, 30))
    for _ in range(2):
        for person in sorted(story.victims, key=lambda person: person.upn):
            at += timedelta(seconds=scene.chance.randint(20, 70))
            story.sign_in(person, at, error=50126, agent=_TOOL)
    at += timedelta(minutes=4)
    session = story.session(story.victim, at)
    request = story.sign_in(story.victim, at, agent=_TOOL, session=session, risk="high")
    story.risk(at, "passwordSpray", request=request["id"])
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    story.raise_alert(raised, "Password spray attack", category="CredentialAccess", evidence=[])


def mfa_fatigue(story: Story, created: datetime) -> None:
    """The password is known; the victim is asked to approve until it does, and a phone is added."""
    scene, victim = story.scene, story.victim
    at = created - timedelta(hours=2, minutes=scene.chance.randint(20, 50))
    for _ in range(scene.chance.randint(12, 20)):
        story.sign_in(victim, at, error=500121, detail="MFA denied; user declined the authentication")
        at += timedelta(seconds=scene.chance.randint(25, 80))
    session = story.session(victim, at)
    request = story.sign_in(victim, at, session=session, risk="high", detail="MFA completed in Azure AD")
    at += timedelta(minutes=4)
    method = story.put("authenticationMethod", shapes.authenticator(scene, victim, at, "Pixel 4a"))
    story.authentication_methods.append(method["id"])
    about = {"id": victim.id, "displayName": None, "userPrincipalName": victim.upn}
    story.change(
        victim,
        at,
        "User registered security info",
        about,
        {"StrongAuthenticationPhoneAppDetail": json.dumps([{"DeviceName": "Pixel 4a"}])},
        "User",
    )
    story.risk(at, "userReportedSuspiciousActivity", request=request["id"])
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    story.raise_alert(raised, "Suspicious MFA activity", category="CredentialAccess", evidence=[])


def mass_download(story: Story, created: datetime) -> None:
    """Somebody takes hundreds of files and shares a folder with whoever has the link."""
    scene, victim = story.scene, story.victim
    at = created - timedelta(hours=1, minutes=scene.chance.randint(20, 40))
    session = story.session(victim, at)
    story.sign_in(victim, at, session=session, risk="medium")
    for number in range(scene.chance.randint(260, 320)):
        at += timedelta(seconds=scene.chance.randint(1, 4))
        event = noise.file_event(
            scene,
            victim,
            at,
            operation="FileDownloaded",
            name=f"Customer {number:04d}.xlsx",
            address=story.address,
            agent=takeover.AGENT,
        )
        story.log(noise.SHAREPOINT, at, event)
    link = noise.sharing(scene, victim, at)
    link.update(Operation="AnonymousLinkCreated", ClientIP=story.address, TargetUserOrGroupType="Guest")
    story.log(noise.SHAREPOINT, at, link)
    story.risk(at, "anomalousUserActivity", "medium")
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    story.raise_alert(raised, "Mass download by a single user", category="Exfiltration", evidence=[])


Chain = Callable[[Story, datetime], None]
#: Each chain with its name and the network that it comes from.
CHAINS: dict[str, tuple[Chain, str]] = {
    "account-takeover": (account_takeover, takeover.ATTACKER),
    "business-email-compromise": (business_email_compromise, "203.0.113.77"),
    "aitm-token-theft": (aitm_token_theft, "203.0.113.88"),
    "malicious-oauth-consent": (malicious_oauth_consent, "203.0.113.99"),
    "password-spray": (password_spray, "203.0.113.110"),
    "mfa-fatigue": (mfa_fatigue, "203.0.113.121"),
    "mass-download": (mass_download, "203.0.113.132"),
}
