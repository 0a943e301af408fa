"""What one attack leaves behind: in the audit log, in Graph's objects, and in the truth of the oracle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.scenario import noise, shapes, takeover
from counterplay_sim.scenario.cast import DOMAIN, Person, guid
from counterplay_sim.scenario.noise import Scene

Doc = dict[str, Any]


@dataclass(slots=True)
class Story:
    """What a chain leaves behind. `events` are `(content type, when, event)`; `objects` go by kind and id.

    The lists of ids say what is the attacker's; everything else is harmless. Devices and machines are
    those that the attacker has a foot on, whoever they belong to. `password`: the attacker knows it, so
    that the account stays in its hands until it is blocked or the password is another one.
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
    app_roles: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)
    password: bool = True
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
        self,
        at: datetime,
        title: str,
        *,
        category: str,
        evidence: list[Doc],
        description: str = "",
        **detected: str,
    ) -> Doc:
        """The alert of the attack, and its incident. `detected`: its `source`, `detection`, `product`."""
        made = takeover.alert(
            self.scene,
            title=title,
            severity="high",
            status="new",
            category=category,
            raised=at,
            first=self.events[0][1],
            last=self.events[-1][1],
            **detected,
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
            "app_roles": self.app_roles,
            "devices": self.devices,
            "machines": self.machines,
            "password": self.password,
            "began": min(stamp(at) for _, at, _ in self.events),
            "forwarding": self.forwarding,
        }
