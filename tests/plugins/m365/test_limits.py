"""Which of Microsoft's documented limits a request counts against."""

from urllib.parse import quote

import pytest
import requests
import responses

from counterplay import StepContext
from counterplay_m365 import limits
from counterplay_m365.graph import Graph
from counterplay_m365.tenant import tenant

GRAPH = "https://graph.microsoft.com/v1.0"


def named(method: str, address: str) -> dict[str, tuple[float, float, float]]:
    """Units, seconds and cost by name; so many at once stand as units."""
    found = limits.of(method, address, "t-1", "app-1", 1.0)
    return {one.name: (one.units or one.at_once, one.seconds, one.cost) for one in found}


@pytest.mark.parametrize(
    ("method", "address", "name", "limit"),
    [
        ("POST", "/v1.0/identityProtection/riskyUsers/dismiss", "identity protection of t-1", (1, 1, 1)),
        ("GET", "/v1.0/auditLogs/signIns?$top=1", "reports for app-1 in t-1", (5, 10, 1)),
        ("PATCH", "/v1.0/security/alerts_v2/a", "security for app-1 in t-1", (150, 60, 1)),
        ("POST", "/v1.0/security/runHuntingQuery", "hunting in t-1", (45, 60, 1)),
        ("GET", "/v1.0/users/ana", "identity reads for app-1 in t-1", (3500, 10, 2)),
        ("GET", "/v1.0/users/ana?$select=id", "identity reads for app-1 in t-1", (3500, 10, 1)),
        ("GET", "/v1.0/users/ana/transitiveMemberOf", "identity reads for app-1 in t-1", (3500, 10, 2)),
        ("GET", "/v1.0/subscribedSkus", "identity reads for app-1 in t-1", (3500, 10, 3)),
        ("PATCH", "/v1.0/users/ana", "identity writes for app-1 in t-1", (3000, 150, 1)),
        ("POST", "/v1.0/users/ana/revokeSignInSessions", "identity writes in t-1", (18_000, 300, 1)),
        ("POST", "/defender/api/machines/1/isolate", "Defender machines of t-1", (100, 60, 1)),
    ],
)
def test_each_service_has_its_own(
    method: str, address: str, name: str, limit: tuple[float, float, float]
) -> None:
    """The narrowest limit of a request, as Microsoft documents it."""
    assert named(method, address)[name] == limit


@pytest.mark.parametrize(
    "path",
    ["/users/Ana/mailFolders/inbox/messageRules", "/users('Ana')/mailboxSettings", "/users/ana/mailFolders"],
)
def test_a_mailbox_works_on_four_requests_at_once(path: str) -> None:
    """Whatever is asked of it, and however its user is written."""
    assert named("GET", f"/v1.0{path}")["mailbox ana for app-1 in t-1, at once"][0] == 4


@pytest.mark.parametrize("asked", ["Ana@Contoso.com", "ana-id"])
def test_a_mailbox_is_counted_once_by_whatever_name(
    context: StepContext, wire: responses.RequestsMock, asked: str
) -> None:
    """Once the user was read, the id and the principal name are the same mailbox, in any spelling."""
    wire.get(f"{GRAPH}/users/{quote(asked)}", json={"id": "Ana-Id", "userPrincipalName": "ana@contoso.com"})
    connection = tenant(context)

    def counted(name: str) -> set[str]:
        path = f"{GRAPH}/users/{name}/mailFolders/inbox/messageRules"
        found = connection.limits(requests.Request("GET", path).prepare())
        return {one.name for one in found if one.name.startswith("mailbox")}

    assert counted("ana%40contoso.com") != counted("ana-id")

    Graph(context).user(asked, ("id", "userPrincipalName"))

    assert counted("ana%40contoso.com") == counted("ANA@contoso.com") == counted("ana-id")
    assert counted("bob@contoso.com") != counted("ana-id")


def test_what_all_tenants_of_an_app_have_together_is_shared() -> None:
    """Its limits bear the app's name alone, and say which tenant takes of them."""
    found = {one.name: one.share for one in limits.of("GET", "/v1.0/users", "t-1", "app-1", 1.0)}

    assert found["Graph for app-1"] == "t-1"
    assert found["identity reads of app-1"] == "t-1"
    assert found["identity reads for app-1 in t-1"] == ""


def test_the_scale_is_that_of_the_connection() -> None:
    """Half of everything that is counted; what is under way at once stays."""
    found = {one.name: one for one in limits.of("GET", "/v1.0/users/a/mailFolders", "t", "a", 0.5)}

    assert found["mailbox a for a in t"].units == 5000
    assert found["mailbox a for a in t, at once"].at_once == 4
