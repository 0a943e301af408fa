"""What the Graph contract says of the resources here: properties, defaults, filters, permissions."""

from __future__ import annotations

JSON = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


USER_TYPE = "microsoft.graph.user"
ALERT_TYPE = "microsoft.graph.security.alert"

READ_USERS = (
    "User.ReadBasic.All",
    "User.Read.All",
    "User.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
)

USER_DEFAULTS = (
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
)
USER_LISTS = _names(
    "assignedLicenses assignedPlans businessPhones identities imAddresses interests licenseAssignmentStates"
    " onPremisesProvisioningErrors otherMails pastProjects provisionedPlans proxyAddresses responsibilities"
    " schools serviceProvisioningErrors skills"
)
_NEVER_NULL = {"birthday": "0001-01-01T00:00:00Z", "hireDate": "0001-01-01T00:00:00Z"}
USER_PROPERTIES = USER_LISTS | _names(
    "id deletedDateTime aboutMe accountEnabled ageGroup authorizationInfo birthday city companyName"
    " consentProvidedForMinor country createdDateTime creationType customSecurityAttributes department"
    " displayName employeeHireDate employeeId employeeLeaveDateTime employeeOrgData employeeType"
    " externalUserState externalUserStateChangeDateTime faxNumber givenName hireDate isManagementRestricted"
    " isResourceAccount jobTitle lastPasswordChangeDateTime legalAgeGroupClassification mail mailboxSettings"
    " mailNickname mobilePhone mySite officeLocation onPremisesDistinguishedName onPremisesDomainName"
    " onPremisesExtensionAttributes onPremisesImmutableId onPremisesLastSyncDateTime"
    " onPremisesSamAccountName onPremisesSecurityIdentifier onPremisesSyncEnabled"
    " onPremisesUserPrincipalName passwordPolicies passwordProfile postalCode preferredDataLocation"
    " preferredLanguage preferredName securityIdentifier showInAddressList signInActivity"
    " signInSessionsValidFromDateTime state streetAddress surname usageLocation userPrincipalName"
    " userType"
)
USER_FILTERS = _names(
    "id accountEnabled createdDateTime department displayName givenName jobTitle mail"
    " onPremisesSecurityIdentifier onPremisesSyncEnabled surname usageLocation userPrincipalName"
    " userType"
)
_TEXT: tuple[type, ...] = (str, type(None))
USER_WRITABLE: dict[str, tuple[type, ...]] = {
    "accountEnabled": (bool,),
    "department": _TEXT,
    "displayName": (str,),
    "givenName": _TEXT,
    "jobTitle": _TEXT,
    "mobilePhone": _TEXT,
    "officeLocation": _TEXT,
    "preferredLanguage": _TEXT,
    "surname": _TEXT,
    "usageLocation": _TEXT,
}

_OBJECT: tuple[type, ...] = (dict, type(None))
RULE_WRITABLE: dict[str, tuple[type, ...]] = {
    "displayName": (str,),
    "sequence": (int,),
    "isEnabled": (bool,),
    "conditions": _OBJECT,
    "actions": _OBJECT,
    "exceptions": _OBJECT,
}

ALERT_FILTERS = _names(
    "assignedTo classification determination createdDateTime lastUpdateDateTime severity serviceSource status"
)


def unset(name: str) -> object:
    """How a user's property looks that nobody has set."""
    return [] if name in USER_LISTS else _NEVER_NULL.get(name)
