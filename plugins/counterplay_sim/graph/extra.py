"""Operations outside the contract's slice, each with the permissions of which any one is enough.

They are what a client needs beside the slice to find an object or to read one back; their permissions are
those of the documentation.
"""

from __future__ import annotations

_METHODS_READ = ("UserAuthenticationMethod.Read.All", "UserAuthenticationMethod.ReadWrite.All")
_DIRECTORY = ("Directory.Read.All", "Directory.ReadWrite.All")
_ROLES = ("RoleManagement.Read.Directory", "RoleManagement.ReadWrite.Directory", *_DIRECTORY)

#: Permissions to write that are good for reading too, where the table names only the one to read. It names
#: both for the neighbours of each of these, and clients with only the write permission do read them.
WIDER: dict[str, tuple[str, ...]] = {
    "GET /users/{}/mailFolders/{}/messageRules": ("MailboxSettings.ReadWrite",),
    "GET /users/{}/mailFolders/{}/messageRules/{}": ("MailboxSettings.ReadWrite",),
    "GET /identityProtection/riskDetections": ("IdentityRiskEvent.ReadWrite.All",),
    "GET /identityProtection/riskDetections/{}": ("IdentityRiskEvent.ReadWrite.All",),
    "GET /identityProtection/riskyUsers": ("IdentityRiskyUser.ReadWrite.All",),
    "GET /identityProtection/riskyUsers/{}": ("IdentityRiskyUser.ReadWrite.All",),
    "GET /users/{}/authentication/fido2Methods": (*_METHODS_READ, "UserAuthMethod-Passkey.ReadWrite.All"),
}
EXTRA: dict[str, tuple[str, ...]] = {
    "GET /users/$count": ("User.ReadBasic.All", "User.Read.All", "User.ReadWrite.All", *_DIRECTORY),
    "GET /devices": ("Device.Read.All", "Device.ReadWrite.All", *_DIRECTORY),
    "GET /devices/{}": ("Device.Read.All", "Device.ReadWrite.All", *_DIRECTORY),
    "GET /groups": ("Group.Read.All", "GroupMember.Read.All", "Group.ReadWrite.All", *_DIRECTORY),
    "GET /groups/{}": ("Group.Read.All", "GroupMember.Read.All", "Group.ReadWrite.All", *_DIRECTORY),
    "GET /domains/{}": ("Domain.Read.All", "Domain.ReadWrite.All", "Directory.Read.All"),
    "GET /organization/{}": (
        "Organization.Read.All",
        "Organization.ReadWrite.All",
        "User.Read.All",
        *_DIRECTORY,
    ),
    "GET /oauth2PermissionGrants/{}": ("DelegatedPermissionGrant.ReadWrite.All", *_DIRECTORY),
    "GET /roleManagement/directory/roleAssignments/{}": _ROLES,
    "GET /roleManagement/directory/roleDefinitions/{}": _ROLES,
    "GET /directoryRoles/{}": _ROLES,
    "POST /roleManagement/directory/roleAssignments": ("RoleManagement.ReadWrite.Directory",),
    "DELETE /roleManagement/directory/roleAssignments/{}": ("RoleManagement.ReadWrite.Directory",),
    **{
        f"GET /users/{{}}/authentication/{kind}Methods/{{}}": _METHODS_READ
        for kind in (
            "phone",
            "email",
            "fido2",
            "microsoftAuthenticator",
            "softwareOath",
            "temporaryAccessPass",
            "windowsHelloForBusiness",
            "platformCredential",
            "externalAuthentication",
            "password",
        )
    },
}
