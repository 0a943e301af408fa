"""Scripted attacks, each with its ground truth: what happened, what was detected, what is the attacker's.

A chain is played on one victim of its own and ends minutes before the tenant's creation. What it writes
into the audit log, into Graph's objects and into the truth goes through its `Story`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.scenario import noise, shapes, takeover
from counterplay_sim.scenario.cast import DOMAIN, Person, guid, rule
from counterplay_sim.scenario.directory import ADMINISTRATORS
from counterplay_sim.scenario.story import Story

Doc = dict[str, Any]

_SCOPES = "Mail.ReadWrite Mail.Send offline_access User.Read"
_TOOL = "python-requests/2.31.0"


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
    """The victim lets a foreign application read and send mail, and so does a colleague; nobody signs in.

    The alert names the victim alone: whoever else consented is found by asking the application.
    """
    scene, victim = story.scene, story.victim
    at = created - timedelta(hours=3, minutes=scene.chance.randint(0, 40))
    app = _foreign_application(story, at, "Mail Archive Pro", "mailarchive.example")
    colleague = scene.chance.choice(scene.people[len(scene.people) // 2 :])
    story.victims.append(colleague)
    for person in (colleague, victim):
        given = story.put("oauth2PermissionGrant", shapes.grant(scene.tenant, app["id"], person, _SCOPES))
        story.grants.append(given["id"])
    at, cause = _consented(story, at, app, given)
    _read_by(story, at, app, [victim])
    _detected(story, at, created, app, cause, "Malicious OAuth app consent")


def malicious_oauth_tenant_wide(story: Story, created: datetime) -> None:
    """An administrator consents for everybody, and the application may read all mail without any user."""
    scene = story.scene
    story.victims = [scene.people[ADMINISTRATORS[0]]]
    at = created - timedelta(hours=3, minutes=scene.chance.randint(0, 40))
    app = _foreign_application(story, at, "Calendar Insights", "insights.example")
    given = story.put("oauth2PermissionGrant", shapes.grant(scene.tenant, app["id"], None, _SCOPES))
    story.grants.append(given["id"])
    role = story.put("appRoleAssignment", shapes.app_role(scene, app, "Mail.Read", at))
    story.app_roles.append(role["id"])
    at, cause = _consented(story, at, app, given)
    _read_by(story, at, app, scene.people[:6])
    _detected(story, at, created, app, cause, "Suspicious OAuth app with tenant-wide permissions")


def _foreign_application(story: Story, at: datetime, name: str, publisher: str) -> Doc:
    """The attacker's application, let into the tenant. It learns nobody's password."""
    story.password = False
    app = shapes.service_principal(story.scene, guid(story.scene.chance), name, publisher, at)
    story.service_principals.append(app["id"])
    return story.put("servicePrincipal", app)


def _consented(story: Story, at: datetime, app: Doc, given: Doc) -> tuple[datetime, Doc]:
    """What the log has of a consent: three operations within seconds. When it ended, and the last of them."""
    victim, everybody = story.victim, given["consentType"] == "AllPrincipals"
    about = {"id": app["id"], "displayName": app["displayName"]}
    named = {"AppId": json.dumps([app["appId"]])}
    story.change(victim, at, "Add service principal.", about, named, "ServicePrincipal")
    at += timedelta(seconds=2)
    scope = {"DelegatedPermissionGrant.Scope": f'" {given["scope"]}"'}
    story.change(victim, at, "Add delegated permission grant.", about, scope, "ServicePrincipal")
    at += timedelta(seconds=1)
    cause = story.change(
        victim,
        at,
        "Consent to application.",
        about,
        {
            "ConsentContext.IsAdminConsent": str(everybody),
            "ConsentContext.OnBehalfOfAll": str(everybody),
            "ConsentAction.Permissions": f"[] => [[Id: {given['id']}, ClientId: {app['id']},"
            f" PrincipalId: {given['principalId'] or ''}, ResourceId: {given['resourceId']},"
            f" ConsentType: {given['consentType']}, Scope: {given['scope']}]]; ",
        },
        "ServicePrincipal",
    )
    return at, cause


def _read_by(story: Story, at: datetime, app: Doc, owners: Sequence[Person]) -> None:
    """The application reads mail, without anybody who signs in."""
    scene = story.scene
    for number in range(scene.chance.randint(20, 30)):
        at += timedelta(seconds=scene.chance.randint(5, 40))
        owner = owners[number % len(owners)]
        event = noise.mail_items_accessed(scene, owner, at, address=story.address, folders=2)
        tool = {"ClientInfoString": f"Client=REST;;{_TOOL}", "SessionId": ""}
        event.update(AppId=app["appId"], ClientAppId=app["appId"], **tool)
        story.log(noise.EXCHANGE, at, event)


def _detected(story: Story, at: datetime, created: datetime, app: Doc, cause: Doc, title: str) -> None:
    """The alert about an application, in the compliance centre and in Defender."""
    scene, victim = story.scene, story.victim
    story.log(noise.GENERAL, at, takeover.alert_triggered(scene, victim, cause, title, at))
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    cloud = takeover.evidence(
        "cloudApplicationEvidence",
        raised,
        [],
        appId=20893,
        displayName=app["displayName"],
        instanceId=0,
        instanceName="Microsoft 365",
        saasAppId=11161,
        stream=None,
    )
    oauth = takeover.evidence(
        "oauthApplicationEvidence",
        raised,
        [],
        appId=app["appId"],
        displayName=app["displayName"],
        objectId=app["id"],
        publisher=app["homepage"].removeprefix("https://"),
    )
    story.raise_alert(raised, title, category="Persistence", evidence=[cloud, oauth])


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


def compromised_device(story: Story, created: datetime) -> None:
    """A stealer on the victim's notebook: its cookies are replayed from outside; other devices are clean."""
    scene, victim = story.scene, story.victim
    at = created - timedelta(hours=2, minutes=scene.chance.randint(0, 40))
    found = shapes.device(scene, victim, at, "CONTOSO-LT-0417", "Windows")
    found |= {"trustType": "AzureAd", "isManaged": True, "isCompliant": True, "deviceOwnership": "Company"}
    device = story.put("device", found)
    machine = story.put("machine", shapes.machine(scene, victim, at, device, DOMAIN))
    story.devices.append(device["id"])
    story.machines.append(machine["id"])
    session = story.session(victim, at)
    request = story.sign_in(victim, at, session=session, risk="high")
    for _ in range(scene.chance.randint(12, 20)):
        at += timedelta(seconds=scene.chance.randint(10, 50))
        story.log(
            noise.EXCHANGE,
            at,
            noise.mail_items_accessed(scene, victim, at, address=story.address, folders=2, session=session),
        )
    story.risk(at, "anomalousToken", request=request["id"])
    raised = created - timedelta(minutes=scene.chance.randint(4, 9))
    story.raise_alert(
        raised,
        "Information stealing malware activity",
        category="CredentialAccess",
        evidence=[takeover.device_evidence(device, machine, raised)],
        source="microsoftDefenderForEndpoint",
        detection="microsoftDefenderForEndpoint",
        product="Microsoft Defender for Endpoint",
    )


Chain = Callable[[Story, datetime], None]
#: Each chain with its name and the network that it comes from.
CHAINS: dict[str, tuple[Chain, str]] = {
    "account-takeover": (account_takeover, takeover.ATTACKER),
    "business-email-compromise": (business_email_compromise, "203.0.113.77"),
    "aitm-token-theft": (aitm_token_theft, "203.0.113.88"),
    "malicious-oauth-consent": (malicious_oauth_consent, "203.0.113.99"),
    "malicious-oauth-tenant-wide": (malicious_oauth_tenant_wide, "203.0.113.101"),
    "password-spray": (password_spray, "203.0.113.110"),
    "mfa-fatigue": (mfa_fatigue, "203.0.113.121"),
    "mass-download": (mass_download, "203.0.113.132"),
    "compromised-device": (compromised_device, "203.0.113.143"),
}
