"""Defender for Identity's accounts: the one way of Graph to an account of Active Directory."""

from __future__ import annotations

from typing import Any

from counterplay_sim.graph import audit
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import GraphError, bad_request, no_resource
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

TYPE = "microsoft.graph.security.identityAccounts"
_ACCOUNTS = Listing(TYPE)


def accounts(user: Doc) -> list[Doc]:
    """The accounts of a person: always one in Entra ID, one in Active Directory when it is synced."""
    made = [{"identityProvider": "entraID", "identifier": user["id"], "actions": _ENTRA}]
    if user.get("onPremisesSyncEnabled"):
        sid = user["onPremisesSecurityIdentifier"]
        made.append({"identityProvider": "activeDirectory", "identifier": sid, "actions": _LOCAL})
    return made


_ENTRA = [
    "disable",
    "enable",
    "forcePasswordReset",
    "revokeAllSessions",
    "requireUserToSignInAgain",
    "markUserAsCompromised",
]
_LOCAL = ["disable", "enable", "forcePasswordReset"]


def _shown(user: Doc, domain: str) -> Doc:
    return {
        "@odata.type": "#microsoft.graph.security.user",
        "id": user["id"],
        "displayName": user["displayName"],
        "domain": domain,
        "isEnabled": user.get("@sim.localEnabled", True) and user["accountEnabled"],
        "cloudSecurityIdentifier": user.get("securityIdentifier"),
        "onPremisesSecurityIdentifier": user.get("onPremisesSecurityIdentifier"),
        "accounts": accounts(user),
    }


def _need(call: Call) -> None:
    if not call.licence.identities:
        raise GraphError(403, "Forbidden", "Your tenant is not licensed for this feature.")


def _list(call: Call) -> Answer:
    _need(call)
    found = [_shown(user, call.tenant.domain) for user in call.every("user")]
    return call.collection("security/identities/identityAccounts", found, _ACCOUNTS)


def _find(call: Call, key: str) -> Doc:
    _need(call)
    found = call.find("user", key)
    if found is None:
        raise no_resource(f"the identity account '{key}'")
    return found


def _get(call: Call, key: str) -> Answer:
    shown = _shown(_find(call, key), call.tenant.domain)
    return call.entity("security/identities/identityAccounts", shown, TYPE)


def _invoke(call: Call, key: str) -> Answer:
    """Asynchronous at Microsoft; here it is done when it is answered."""
    values = call.arguments(accountId=str, action=str, identityProvider=str)
    user = _find(call, key)
    for account in accounts(user):
        if (account["identityProvider"], account["identifier"]) == (
            values["identityProvider"],
            values["accountId"],
        ):
            break
    else:
        raise bad_request("The account does not belong to the identity.")
    if values["action"] not in account["actions"]:
        raise bad_request(f"The action '{values['action']}' is not available for the account.")
    with call.tenant.transaction():
        before, after = _done(call, user, account["identityProvider"], values["action"])
        audit.journal(
            call,
            f"identity_{values['action']}",
            user=user["id"],
            target=values["accountId"],
            before=before,
            after=after,
        )
    return call.json({**values, "correlationId": call.request_id})


def _done(call: Call, user: Doc, provider: str, action: str) -> tuple[Doc, Doc]:
    if action in ("disable", "enable"):
        name = "accountEnabled" if provider == "entraID" else "@sim.localEnabled"
        after = {name: action == "enable"}
        call.put("user", {**user, **after})
        return {name: user.get(name, True)}, after
    sessions = call.tenant.sessions.get(user["id"], [])
    if action in ("revokeAllSessions", "requireUserToSignInAgain"):
        call.tenant.sessions.put(user["id"], [])
    return {"sessions": len(sessions)}, {"sessions": len(call.tenant.sessions.get(user["id"], []))}


_PATH = "/security/identities/identityAccounts"
ROUTES = {
    f"GET {_PATH}": _list,
    f"GET {_PATH}/{{}}": _get,
    f"POST {_PATH}/{{}}/invokeAction": _invoke,
}
