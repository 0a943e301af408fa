"""The part of Graph about how people sign in: passwords and authentication methods."""

from __future__ import annotations

from dataclasses import dataclass

from counterplay import JsonObject, PermanentError
from counterplay_m365.graph import Graph, segment, user_path

PASSWORD = "User-PasswordProfile.ReadWrite.All"
_ALL_METHODS = "UserAuthenticationMethod.ReadWrite.All"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of authentication method: its collection, and what it takes to delete one."""

    collection: str
    permission: str


# https://learn.microsoft.com/graph/api/resources/authenticationmethods-overview
KINDS = {
    "phone": Kind("phoneMethods", "UserAuthMethod-Phone.ReadWrite.All"),
    "email": Kind("emailMethods", "UserAuthMethod-Email.ReadWrite.All"),
    "fido2": Kind("fido2Methods", "UserAuthMethod-Passkey.ReadWrite.All"),
    "microsoftAuthenticator": Kind(
        "microsoftAuthenticatorMethods", "UserAuthMethod-MicrosoftAuthApp.ReadWrite.All"
    ),
    "softwareOath": Kind("softwareOathMethods", "UserAuthMethod-SoftwareOATH.ReadWrite.All"),
    "temporaryAccessPass": Kind("temporaryAccessPassMethods", "UserAuthMethod-TAP.ReadWrite.All"),
    "windowsHelloForBusiness": Kind(
        "windowsHelloForBusinessMethods", "UserAuthMethod-WindowsHello.ReadWrite.All"
    ),
    "platformCredential": Kind("platformCredentialMethods", "UserAuthMethod-PlatformCred.ReadWrite.All"),
    "external": Kind("externalAuthenticationMethods", "UserAuthMethod-External.ReadWrite.All"),
}
#: Permissions of which any may delete some method of an ordinary account.
DELETE = frozenset({_ALL_METHODS, *(kind.permission for kind in KINDS.values())})


class Accounts(Graph):
    """How people of the tenant of a context sign in."""

    def methods(self, user_id: str) -> list[JsonObject]:
        """All authentication methods of a user, the password among them. GoneError: there is no user."""
        path = f"{user_path(user_id)}/authentication/methods"
        what = f"the authentication methods of {user_id!r}"
        return self.every(path, what, needs="UserAuthenticationMethod.Read.All")

    def delete_method(self, user_id: str, method: JsonObject) -> None:
        """Delete a method. GoneError: it does not exist. PermanentError: this kind cannot be deleted."""
        name = kind_of(method)
        kind = KINDS.get(name)
        if kind is None:
            raise PermanentError(f"a method of the kind {name} cannot be deleted through Graph")
        path = f"{user_path(user_id)}/authentication/{kind.collection}/{segment(method['id'])}"
        self.write(
            "DELETE", path, f"the method {method['id']!r}", needs=f"{kind.permission} or {_ALL_METHODS}"
        )


def kind_of(method: JsonObject) -> str:
    """`phone` of `#microsoft.graph.phoneAuthenticationMethod`."""
    return str(method.get("@odata.type") or "").rpartition(".")[2].removesuffix("AuthenticationMethod")
