"""Which service plans unlock what, and what a refusal for want of a licence looks like.

https://learn.microsoft.com/entra/identity/users/licensing-service-plan-reference
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Service plans by name, the ids that `subscribedSkus` gives them.
PLANS: Mapping[str, str] = {
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
PREMIUM_CODE = "Authentication_RequestFromNonPremiumTenantOrB2CTenant"
"""Also seen now and then on tenants that do have the licence."""


@dataclass(frozen=True, slots=True)
class Licence:
    """What a call needs: any one of the plans. `name` is what people buy."""

    name: str
    any_of: tuple[str, ...]

    def covered_by(self, plans: Collection[str]) -> bool:
        """Whether one of the tenant's plans is enough."""
        return bool(set(self.any_of) & set(plans))


ENTRA_P1 = Licence("Entra ID P1", ("AAD_PREMIUM", "AAD_PREMIUM_P2"))
ENTRA_P2 = Licence("Entra ID P2", ("AAD_PREMIUM_P2",))
DEFENDER = Licence(
    "a Microsoft Defender product or Entra ID P2",
    (
        "MTP",
        "WINDEFATP",
        "MDE_LITE",
        "MDE_SMB",
        "ATP_ENTERPRISE",
        "THREAT_INTELLIGENCE",
        "ATA",
        "ADALLOM_S_STANDALONE",
        "AAD_PREMIUM_P2",
    ),
)
MACHINES = Licence("Defender for Endpoint", ("WINDEFATP", "MDE_LITE", "MDE_SMB"))
HUNTING = Licence(
    "a Defender plan with advanced hunting",
    ("MTP", "WINDEFATP", "THREAT_INTELLIGENCE", "ATA", "ADALLOM_S_STANDALONE"),
)


def plans_of(skus: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The names of the known plans that a tenant's subscriptions hold and that are switched on.

    A plan that is still being provisioned counts: it may work already.
    """
    by_id = {identity: name for name, identity in PLANS.items()}
    found: set[str] = set()
    for sku in skus:
        if sku.get("capabilityStatus") not in ("Enabled", "Warning"):
            continue
        for plan in sku.get("servicePlans") or ():
            if plan.get("provisioningStatus") in _ON:
                name = by_id.get(str(plan.get("servicePlanId", "")).lower())
                found.update([name] if name else [])
    return frozenset(found)


_ON = ("Success", "PendingActivation", "PendingProvisioning")


def refused_for_licence(status: int | None, code: str | None, message: str) -> bool:
    """Whether a refusal says that a licence is missing. By status and code; the words break a tie."""
    if status == 403:
        return code == PREMIUM_CODE or (
            code in ("Forbidden", "AccessDenied") and re.search("licen[cs]e", message.lower()) is not None
        )
    return status == 400 and code == "AadPremiumLicenseRequired"


def not_activated(status: int | None, message: str) -> bool:
    """Whether a 401 says that Defender XDR was never activated: no new token cures it."""
    return status == 401 and "account is not provisioned" in message.lower()
