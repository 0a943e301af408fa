"""Graph's refusals, with the codes and texts that the real services use."""

from __future__ import annotations

Headers = tuple[tuple[str, str], ...]


class GraphError(Exception):
    """An answer that is an error: `{"error": {"code", "message", "innerError"}}`."""

    def __init__(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def bad_request(message: str, code: str = "BadRequest") -> GraphError:
    """400: the request is malformed, or asks what the service does not do."""
    return GraphError(400, code, message)


def no_object(identifier: str) -> GraphError:
    """404 of the directory."""
    return GraphError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{identifier}' does not exist or one of its queried reference-property objects are not"
        " present.",
    )


def no_item() -> GraphError:
    """404 of Exchange."""
    return GraphError(404, "ErrorItemNotFound", "The specified object was not found in the store.")


def no_resource(what: str) -> GraphError:
    """404 of the security and identity protection services."""
    return GraphError(404, "ResourceNotFound", f"Resource not found for {what}.")


def denied() -> GraphError:
    """403: a permission or a role is missing."""
    return GraphError(
        403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."
    )


def mailbox_denied() -> GraphError:
    """403 of Exchange."""
    return GraphError(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")


def not_premium() -> GraphError:
    """403 of the sign-in log and of registration reports without Entra ID P1."""
    return GraphError(
        403,
        "Authentication_RequestFromNonPremiumTenantOrB2CTenant",
        "Neither tenant is B2C or tenant doesn't have premium license",
    )


def not_licensed() -> GraphError:
    """403 of identity protection without Entra ID P1 or P2."""
    return GraphError(403, "Forbidden", "Your tenant is not licensed for this feature.")


def not_provisioned() -> GraphError:
    """401 of Defender XDR that was never activated; the token is fine."""
    return GraphError(401, "Unauthorized", "Unauthorized request - Account is not provisioned.")


def no_mailbox() -> GraphError:
    """404 of a user without a mailbox in Exchange Online."""
    return GraphError(
        404,
        "MailboxNotEnabledForRESTAPI",
        "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
    )


def invalid_property(name: str) -> GraphError:
    """400 of the directory: no such property, or one that cannot be written."""
    return bad_request(f"Invalid property '{name}'.", "Request_BadRequest")


def invalid_value(name: str, resource: str) -> GraphError:
    """400 of the directory: the value has another type."""
    return bad_request(
        f"Invalid value specified for property '{name}' of resource '{resource}'.", "Request_BadRequest"
    )


def synced() -> GraphError:
    """400: the object's master is Active Directory."""
    return bad_request(
        "Unable to update the specified properties for on-premises mastered Directory Sync objects or objects"
        " currently undergoing migration.",
        "Request_BadRequest",
    )
