"""Microsoft's own Python client against the simulated tenant, with no patch beyond base URL and CA."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgraph", reason="needs the extra `interop`")
pytest.importorskip("azure.identity", reason="needs the extra `interop`")

with warnings.catch_warnings():  # the generated client warns about itself
    warnings.simplefilter("ignore", DeprecationWarning)
    import httpx
    from azure.identity import ClientSecretCredential
    from kiota_abstractions.api_error import APIError
    from kiota_abstractions.base_request_configuration import RequestConfiguration
    from kiota_authentication_azure.azure_identity_authentication_provider import (
        AzureIdentityAuthenticationProvider,
    )
    from msgraph import GraphRequestAdapter, GraphServiceClient
    from msgraph.generated.models.message_rule import MessageRule
    from msgraph.generated.models.message_rule_actions import MessageRuleActions
    from msgraph.generated.models.security.user_evidence import UserEvidence
    from msgraph.generated.models.user import User
    from msgraph.generated.security.incidents.incidents_request_builder import IncidentsRequestBuilder
    from msgraph.generated.users.item.user_item_request_builder import UserItemRequestBuilder
    from msgraph.generated.users.users_request_builder import UsersRequestBuilder
    from msgraph_core import GraphClientFactory

from counterplay_sim.testing import ManualClock, Simulator

Use = Callable[[GraphServiceClient], Awaitable[Any]]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PERMISSIONS = [
    "MailboxSettings.ReadWrite",
    "SecurityAlert.ReadWrite.All",
    "SecurityIncident.Read.All",
    "User.EnableDisableAccount.All",
    "User.Read.All",
    "User.RevokeSessions.All",
]


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    """A small tenant in this process."""
    clock = ManualClock(datetime(2026, 3, 2, 10, 30, tzinfo=UTC))
    with Simulator(tmp_path, events=20, clock=clock) as started:
        started.tenant.grants["graph"] = PERMISSIONS
        yield started


@pytest.fixture
def graph(simulator: Simulator) -> Callable[[Use], Any]:
    """Runs a coroutine function with the client, and closes its connections."""
    settings = simulator.m365_settings()
    base = settings["graph_url"]

    def run(use: Use) -> Any:
        async def inside() -> Any:
            verify = ssl.create_default_context(cafile=settings["ca_file"])
            transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False)
            # The client wraps its own layers around the transport and never closes it.
            async with transport, httpx.AsyncClient(transport=transport, trust_env=False) as plain:
                http = GraphClientFactory.create_with_default_middleware(client=plain)
                adapter = GraphRequestAdapter(
                    AzureIdentityAuthenticationProvider(
                        credential, scopes=[f"{base}/.default"], allowed_hosts=["127.0.0.1"]
                    ),
                    http,
                )
                adapter.base_url = f"{base}/v1.0"
                return await use(GraphServiceClient(request_adapter=adapter))

        with ClientSecretCredential(
            settings["tenant_id"],
            settings["client_id"],
            settings["client_secret"],
            authority=settings["authority"],
            disable_instance_discovery=True,
            connection_verify=settings["ca_file"],
        ) as credential:
            return asyncio.run(inside())

    return run


@pytest.fixture
def victim(simulator: Simulator) -> str:
    """The object id of the compromised user."""
    return str(simulator.tenant.row.doc["truth"]["victim"])


def test_alerts_are_listed_with_their_evidence(graph: Any, simulator: Simulator, victim: str) -> None:
    """Every alert arrives typed; evidence becomes the class that it names."""

    async def use(client: GraphServiceClient) -> Any:
        answer = await client.security.alerts_v2.get()
        assert answer is not None
        return answer.value

    alerts = graph(use)

    assert sorted(one.id for one in alerts) == sorted(simulator.tenant.alerts)
    users = [e for one in alerts for e in one.evidence if isinstance(e, UserEvidence)]
    assert victim in [one.user_account.azure_ad_user_id for one in users]
    assert {one.severity.value for one in alerts} <= {"low", "medium", "high", "informational"}


def test_incidents_come_with_their_alerts(graph: Any, simulator: Simulator) -> None:
    """`$expand=alerts`, in pages of two that the client follows by itself."""

    async def use(client: GraphServiceClient) -> Any:
        Query = IncidentsRequestBuilder.IncidentsRequestBuilderGetQueryParameters
        wanted = RequestConfiguration(query_parameters=Query(expand=["alerts"], top=2))
        answer = await client.security.incidents.get(request_configuration=wanted)
        found = []
        while answer is not None:
            found += answer.value
            link = answer.odata_next_link
            answer = await client.security.incidents.with_url(link).get() if link else None
        return found

    incidents = graph(use)

    assert sorted(one.id for one in incidents) == sorted(simulator.tenant.objects["incident"])
    assert sorted(alert.id for one in incidents for alert in one.alerts) == sorted(simulator.tenant.alerts)


def test_a_user_is_blocked_and_read_back(graph: Any, simulator: Simulator, victim: str) -> None:
    """PATCH, then GET with `$select`; the oracle saw the change."""

    async def use(client: GraphServiceClient) -> Any:
        await client.users.by_user_id(victim).patch(User(account_enabled=False))
        Query = UserItemRequestBuilder.UserItemRequestBuilderGetQueryParameters
        wanted = RequestConfiguration(query_parameters=Query(select=["accountEnabled", "displayName"]))
        return await client.users.by_user_id(victim).get(request_configuration=wanted)

    user = graph(use)

    assert user.account_enabled is False
    assert simulator.tenant.users[victim]["accountEnabled"] is False


def test_sessions_are_revoked(graph: Any, simulator: Simulator, victim: str) -> None:
    """The answer is `true`, and no session is left."""

    async def use(client: GraphServiceClient) -> Any:
        return await client.users.by_user_id(victim).revoke_sign_in_sessions.post()

    assert graph(use).value is True
    assert simulator.tenant.sessions[victim] == []


def test_inbox_rules_are_paged_made_and_removed(graph: Any, simulator: Simulator, victim: str) -> None:
    """Rules one a page, a new one, and its end."""

    async def use(client: GraphServiceClient) -> Any:
        rules = client.users.by_user_id(victim).mail_folders.by_mail_folder_id("inbox").message_rules
        Query = type(rules).MessageRulesRequestBuilderGetQueryParameters
        answer = await rules.get(request_configuration=RequestConfiguration(query_parameters=Query(top=1)))
        found = []
        while answer is not None:
            assert len(answer.value or []) == 1
            found += answer.value or []
            link = answer.odata_next_link
            answer = await rules.with_url(link).get() if link else None
        new = MessageRule(display_name="r", sequence=9, actions=MessageRuleActions(mark_as_read=True))
        made = await rules.post(new)
        assert made is not None
        await rules.by_message_rule_id(str(made.id)).delete()
        return found

    rules = graph(use)

    assert [one.id for one in rules] == [one["id"] for one in simulator.tenant.rules[victim]]
    assert rules[0].actions.forward_to[0].email_address.address == "collect@evil.example"


def test_users_are_followed_over_every_page(graph: Any, simulator: Simulator) -> None:
    """The client's own links lead through all of them."""

    async def use(client: GraphServiceClient) -> Any:
        Query = UsersRequestBuilder.UsersRequestBuilderGetQueryParameters
        wanted = RequestConfiguration(query_parameters=Query(top=7, select=["id"]))
        answer = await client.users.get(request_configuration=wanted)
        found = []
        while answer is not None:
            found += answer.value
            link = answer.odata_next_link
            answer = await client.users.with_url(link).get() if link else None
        return found

    assert [one.id for one in graph(use)] == list(simulator.tenant.users)


def test_an_error_is_one_that_the_client_understands(graph: Any) -> None:
    """404 becomes its ODataError with Graph's code."""

    async def use(client: GraphServiceClient) -> Any:
        await client.users.by_user_id("nobody@contoso.example").get()

    with pytest.raises(APIError) as caught:
        graph(use)

    assert caught.value.response_status_code == 404
    assert caught.value.error.code == "Request_ResourceNotFound"  # type: ignore[attr-defined]  # ODataError
