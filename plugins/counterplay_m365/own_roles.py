"""The directory roles of Entra ID that the app itself holds: some calls need one beside a permission.

https://learn.microsoft.com/graph/api/resources/users#who-can-perform-sensitive-actions
"""

from __future__ import annotations

from collections.abc import Mapping

from counterplay import Context
from counterplay_m365.roles import Roles
from counterplay_m365.tenant import GRAPH, tenant

#: Names, as schemas write them under `x-roles`, and the templates' ids, the same in every tenant.
ROLES: Mapping[str, str] = {
    "Global Administrator": "62e90394-69f5-4237-9190-012177145e10",
    "Global Reader": "f2ef992c-3afb-46b9-b7cf-a126ee74c451",
    "Privileged Authentication Administrator": "7be44c8a-adaf-4e2a-84d6-ab2649e08a13",
    "Privileged Role Administrator": "e8611ab8-c189-46e8-94e1-60213ab1f814",
    "User Administrator": "fe930be7-5e62-47db-91af-98c3a49a38b1",
    "Authentication Administrator": "c4e39bd9-1100-46d3-8c65-fb160da0071f",
    "Security Administrator": "194ae4cb-b126-40b2-bd5b-6091b380977d",
    "Security Operator": "5f2222b1-57c3-48ba-8ad5-d4759f1fde6f",
    "Security Reader": "5d6b6bb7-de71-4623-b4af-96380a352509",
    "Exchange Administrator": "29232cdf-9323-42fd-ade2-1d097af3e4de",
}
_NAMES = {identity: name for name, identity in ROLES.items()}


def own_roles(context: Context) -> frozenset[str] | None:
    """The names of the roles of the app of a context; None when its token does not tell who it is.

    BlockedError: the app may not read role assignments.
    """
    from counterplay_m365.entra import principal  # MSAL costs more than naming all modules

    own = principal(tenant(context).token(GRAPH))
    if own is None:
        return None
    held = (str(one.get("roleDefinitionId")) for one in Roles(context).assignments([own]))
    return frozenset(_NAMES[one] for one in held if one in _NAMES)
