"""Licence profiles: which SKUs a tenant has bought, and what its services therefore answer."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

Doc = dict[str, Any]

PLANS = {
    "AAD_PREMIUM": "41781fb2-bc02-4b7c-bd55-b576c07bb09d",
    "AAD_PREMIUM_P2": "eec0eb4f-6444-4f95-aba0-50c24d67f998",
    "WINDEFATP": "871d91ec-ec1a-452b-a83f-bd76c7d770ef",
    "MDE_LITE": "292cc034-7b7c-4950-aaf5-943befd3f1d4",
    "MDE_SMB": "bfc1bbd9-981b-4f71-9b82-17c35fd0e2a4",
    "ATP_ENTERPRISE": "f20fedf3-f3c3-43c3-8267-2bfdd51c0939",
    "THREAT_INTELLIGENCE": "8e0c0a52-6a6c-4d40-8370-dd62790dcd70",
    "ATA": "14ab5db5-e6c4-4b20-b4bc-13e36fd2227f",
    "ADALLOM_S_STANDALONE": "2e2ddb96-6af9-4b1d-a3f0-d6ecfd22edb2",
    "MTP": "bf28f719-7844-4079-9c78-c1307898e192",
    "M365_ADVANCED_AUDITING": "2f442157-a11c-46b9-ae5b-6e39ff4e5849",
    "EXCHANGE_S_STANDARD": "9aaf7827-d63c-4b61-89c3-182f06f82e5c",
    "EXCHANGE_S_ENTERPRISE": "efb87545-963c-4e0d-99df-69c6916d9eb0",
    "INTUNE_A": "c1ec4a95-1f05-45b3-a911-aa3fa01094f5",
}
_E3 = ("EXCHANGE_S_ENTERPRISE", "AAD_PREMIUM", "MDE_LITE", "INTUNE_A")
_E5 = (
    "EXCHANGE_S_ENTERPRISE",
    "AAD_PREMIUM",
    "AAD_PREMIUM_P2",
    "WINDEFATP",
    "ATP_ENTERPRISE",
    "THREAT_INTELLIGENCE",
    "ATA",
    "ADALLOM_S_STANDALONE",
    "MTP",
    "M365_ADVANCED_AUDITING",
    "INTUNE_A",
)
_BASIC = ("O365_BUSINESS_ESSENTIALS", "3b555118-da6a-4418-894f-7df1e2096870", ("EXCHANGE_S_STANDARD",))
_SKUS: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "free": (("FLOW_FREE", "f30db892-07e9-47e9-837c-80727f46fd3d", ()),),
    "business_basic": (_BASIC,),
    "p1": (_BASIC, ("AAD_PREMIUM", "078d2b04-f1bd-4111-bbd4-b4b1b354cef4", ("AAD_PREMIUM",))),
    "p2": (
        _BASIC,
        ("AAD_PREMIUM_P2", "84a661c4-e949-4bd2-a560-ed7766fcaf2b", ("AAD_PREMIUM", "AAD_PREMIUM_P2")),
    ),
    "business_premium": (
        (
            "SPB",
            "cbdc14ab-d96c-4c30-b9f4-6ada7cdc1d46",
            ("EXCHANGE_S_STANDARD", "AAD_PREMIUM", "ATP_ENTERPRISE", "MDE_SMB", "INTUNE_A"),
        ),
    ),
    "e3": (("SPE_E3", "05e9a617-0261-4cee-bb44-138d3ef5d965", _E3),),
    "e5": (("SPE_E5", "06ebc4ee-1bb5-47dd-8120-11324bc54e06", _E5),),
    "no_xdr": (("SPE_E5", "06ebc4ee-1bb5-47dd-8120-11324bc54e06", _E5),),
}
PROFILES = tuple(_SKUS)
_DEFENDER = frozenset(
    {
        "WINDEFATP",
        "MDE_LITE",
        "MDE_SMB",
        "ATP_ENTERPRISE",
        "THREAT_INTELLIGENCE",
        "ATA",
        "ADALLOM_S_STANDALONE",
    }
)


@dataclass(frozen=True, slots=True)
class Licence:
    """What a profile unlocks.

    `risk` is `none`, `reduced` (levels hidden, detections generic) or `full`. `xdr` says whether Defender
    XDR is activated, which `no_xdr` bought and never did.
    """

    profile: str
    plans: frozenset[str]

    @property
    def mail(self) -> bool:
        """Users have mailboxes."""
        return bool(self.plans & {"EXCHANGE_S_STANDARD", "EXCHANGE_S_ENTERPRISE"})

    @property
    def premium(self) -> bool:
        """Entra ID P1 or P2: sign-ins, sign-in activity, registration report."""
        return "AAD_PREMIUM" in self.plans

    @property
    def risk(self) -> str:
        if "AAD_PREMIUM_P2" in self.plans:
            return "full"
        return "reduced" if self.premium else "none"

    @property
    def governance(self) -> bool:
        """Privileged Identity Management."""
        return "AAD_PREMIUM_P2" in self.plans

    @property
    def xdr(self) -> bool:
        return self.profile != "no_xdr" and bool(self.plans & _DEFENDER)

    @property
    def hunting(self) -> bool:
        return self.xdr and bool(self.plans & {"MTP", "WINDEFATP", "THREAT_INTELLIGENCE"})

    @property
    def machines(self) -> bool:
        """Machines can be isolated."""
        return bool(self.plans & {"WINDEFATP", "MDE_LITE", "MDE_SMB"})

    @property
    def identities(self) -> bool:
        """Defender for Identity."""
        return self.xdr and "ATA" in self.plans


def licence(profile: str) -> Licence:
    """ValueError: there is no such profile."""
    if profile not in _SKUS:
        raise ValueError(f"there is no licence profile {profile!r}; choose one of {', '.join(PROFILES)}")
    return Licence(profile, frozenset(plan for _, _, plans in _SKUS[profile] for plan in plans))


def skus(profile: str, tenant: str, users: int) -> list[Doc]:
    """What `GET /subscribedSkus` shows."""
    made = []
    for name, key, plans in _SKUS[licence(profile).profile]:
        units = 10_000 if name == "FLOW_FREE" else max(25, users)
        made.append(
            {
                "accountId": tenant,
                "accountName": "contoso-sim",
                "appliesTo": "User",
                "capabilityStatus": "Enabled",
                "consumedUnits": min(users, units),
                "id": f"{tenant}_{key}",
                "prepaidUnits": {"enabled": units, "suspended": 0, "warning": 0, "lockedOut": 0},
                "servicePlans": service_plans(plans),
                "skuId": key,
                "skuPartNumber": name,
                "subscriptionIds": [str(uuid.uuid5(uuid.UUID(tenant), name))],
            }
        )
    return made


def service_plans(plans: tuple[str, ...]) -> list[Doc]:
    """Service plans as SKUs and licence details list them."""
    return [
        {
            "servicePlanId": PLANS[plan],
            "servicePlanName": plan,
            "provisioningStatus": "Success",
            "appliesTo": "Company" if plan == "MTP" else "User",
        }
        for plan in plans
    ]
