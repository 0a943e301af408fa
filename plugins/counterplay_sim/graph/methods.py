"""Authentication methods: listed by user, deleted by kind; and the report on who registered them."""

from __future__ import annotations

from typing import Any

from counterplay_sim.graph import audit
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import bad_request, denied, no_resource
from counterplay_sim.graph.users import find_user, refuse_protected, role_holders, target
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

PASSWORD = "28c10230-6103-485e-b985-444c60001490"
MOBILE = "3179e48a-750b-4051-897c-87b9720928f7"
ALTERNATE_MOBILE = "b6332ec1-7057-4abe-9331-3d72feddfe41"

#: Collections by the type of their members.
KINDS = {
    "phone": "phoneAuthenticationMethod",
    "email": "emailAuthenticationMethod",
    "fido2": "fido2AuthenticationMethod",
    "microsoftAuthenticator": "microsoftAuthenticatorAuthenticationMethod",
    "softwareOath": "softwareOathAuthenticationMethod",
    "temporaryAccessPass": "temporaryAccessPassAuthenticationMethod",
    "windowsHelloForBusiness": "windowsHelloForBusinessAuthenticationMethod",
    "platformCredential": "platformCredentialAuthenticationMethod",
    "externalAuthentication": "externalAuthenticationMethod",
    "password": "passwordAuthenticationMethod",
}
_MIXED = Listing("microsoft.graph.authenticationMethod", options=frozenset({"$filter", "$select"}))


def methods_of(call: Call, user: Doc) -> list[Doc]:
    """Everything that a user can authenticate with; objects name their user in `@sim.user`."""
    held = call.tenant.objects["authenticationMethod"].where("@sim.user", user["id"])
    password = {
        "@odata.type": "#microsoft.graph.passwordAuthenticationMethod",
        "id": PASSWORD,
        "password": None,
        "createdDateTime": user.get("lastPasswordChangeDateTime"),
    }
    return [password, *held]


def _list(call: Call, name: str) -> Answer:
    user = find_user(call, name)
    return call.collection(f"users('{user['id']}')/authentication/methods", methods_of(call, user), _MIXED)


def _reset(call: Call, name: str, key: str) -> Answer:
    raise denied()  # delegated only: no application permission is good for it


def _of_kind(call: Call, user: Doc, kind: str) -> list[Doc]:
    wanted = f"#microsoft.graph.{KINDS[kind]}"
    return [one for one in methods_of(call, user) if one["@odata.type"] == wanted]


def _operations(kind: str) -> dict[str, Any]:
    listing = Listing(f"microsoft.graph.{KINDS[kind]}", options=frozenset({"$filter", "$select"}))

    def found(call: Call, user: Doc, key: str) -> Doc:
        for one in _of_kind(call, user, kind):
            if one["id"] == key:
                return one
        raise no_resource(f"the authentication method '{key}'")

    def context(user: Doc) -> str:
        return f"users('{user['id']}')/authentication/{kind}Methods"

    def several(call: Call, name: str) -> Answer:
        user = find_user(call, name)
        return call.collection(context(user), _of_kind(call, user, kind), listing)

    def single(call: Call, name: str, key: str) -> Answer:
        user = find_user(call, name)
        return call.entity(context(user), found(call, user, key), listing.type)

    def delete(call: Call, name: str, key: str) -> Answer:
        user = find_user(call, name)
        method = found(call, user, key)
        refuse_protected(call, user)
        _refuse_order(call, user, method)
        with call.tenant.transaction():
            call.tenant.objects["authenticationMethod"].remove(method.get("@sim.key", key))
            audit.journal(call, f"delete_{kind}_method", user=user["id"], target=key, before=method, after={})
            audit.directory(
                call,
                "Admin deleted security info",
                "UserManagement",
                target(user),
                operation="Delete",
                service="Authentication Methods",
            )
        return Answer(204)

    path = f"/users/{{}}/authentication/{kind}Methods"
    made = {f"GET {path}": several, f"GET {path}/{{}}": single}
    return made if kind == "password" else made | {f"DELETE {path}/{{}}": delete}


def _refuse_order(call: Call, user: Doc, method: Doc) -> None:
    """The default method goes last, and a mobile number after the alternate one."""
    others = [one for one in methods_of(call, user) if one["id"] not in (method["id"], PASSWORD)]
    if method.get("@sim.default") and others:
        raise bad_request("The method is the user's default and cannot be deleted while others exist.")
    if method["id"] == MOBILE and any(one["id"] == ALTERNATE_MOBILE for one in others):
        raise bad_request("The mobile phone cannot be deleted while an alternate mobile phone exists.")


_REPORT = Listing("microsoft.graph.userRegistrationDetails", page=1000, most=1000, over="cap")
_NAMES = {
    "phone": "mobilePhone",
    "email": "email",
    "fido2": "fido2SecurityKey",
    "microsoftAuthenticator": "microsoftAuthenticatorPush",
    "softwareOath": "softwareOneTimePasscode",
    "windowsHelloForBusiness": "windowsHelloForBusiness",
}


def _report(call: Call) -> Answer:
    by_type = {f"#microsoft.graph.{KINDS[kind]}": name for kind, name in _NAMES.items()}
    made = []
    administrators = role_holders(call)
    for user in call.every("user"):
        held = [
            by_type[one["@odata.type"]] for one in methods_of(call, user) if one["@odata.type"] in by_type
        ]
        strong = [name for name in held if name != "email"]
        made.append(
            {
                "id": user["id"],
                "isAdmin": user["id"] in administrators,
                "isMfaCapable": bool(strong),
                "isMfaRegistered": bool(strong),
                "isPasswordlessCapable": bool({"fido2SecurityKey", "windowsHelloForBusiness"} & set(held)),
                "isSsprCapable": bool(held),
                "isSsprEnabled": True,
                "isSsprRegistered": bool(held),
                "isSystemPreferredAuthenticationMethodEnabled": True,
                "lastUpdatedDateTime": call.now,
                "methodsRegistered": held,
                "systemPreferredAuthenticationMethods": strong[:1],
                "userDisplayName": user["displayName"],
                "userPreferredMethodForSecondaryAuthentication": "none",
                "userPrincipalName": user["userPrincipalName"],
                "userType": "guest" if user.get("userType") == "Guest" else "member",
            }
        )
    return call.collection("reports/authenticationMethods/userRegistrationDetails", made, _REPORT)


ROUTES: dict[str, Any] = {
    "GET /users/{}/authentication/methods": _list,
    "POST /users/{}/authentication/methods/{}/resetPassword": _reset,
    "GET /reports/authenticationMethods/userRegistrationDetails": _report,
}
for _kind in KINDS:
    ROUTES |= _operations(_kind)
