"""The token end-point, asked by Microsoft's own library and by hand."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import msal
import pytest
import requests

_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture
def application(client: Any) -> Any:
    """Makes MSAL's client for the simulated tenant, with other settings where given."""

    def make(**changes: str) -> msal.ConfidentialClientApplication:
        settings = client.tenant | changes
        return msal.ConfidentialClientApplication(
            settings["client_id"],
            authority=f"{settings['authority']}/{settings['tenant_id']}",
            client_credential=settings["client_secret"],
            instance_discovery=settings["instance_discovery"],
            http_client=client.session,
        )

    return make


@pytest.mark.parametrize(
    ("resource", "role"),
    [
        ("graph_url", "User.EnableDisableAccount.All"),
        ("activity_url", "ActivityFeed.Read"),
    ],
)
def test_msal_gets_a_token_that_names_the_granted_roles(
    application: Any, client: Any, simulator: Any, resource: str, role: str
) -> None:
    """MSAL runs unchanged, over TLS, and the token carries tenant, app and permissions."""
    answer = application().acquire_token_for_client([client.tenant[resource] + "/.default"])

    part = answer["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert role in claims["roles"]
    assert claims["aud"] == client.tenant[resource]
    assert claims["tid"] == simulator.tenant.id
    assert claims["appid"] == simulator.tenant.client_id
    assert claims["iss"] == f"https://sts.windows.net/{simulator.tenant.id}/"


def test_msal_reports_a_wrong_secret(application: Any, client: Any) -> None:
    """The refusal is Entra's: 401 invalid_client with its AADSTS code."""
    app = application(client_secret="the secret's identifier")

    answer = app.acquire_token_for_client([client.tenant["graph_url"] + "/.default"])

    assert (answer["error"], answer["error_codes"]) == ("invalid_client", [7000215])


@pytest.mark.parametrize(
    ("form", "status", "number"),
    [
        ({"client_secret": "wrong"}, 401, 7000215),
        ({"client_secret": ""}, 401, 7000218),
        ({"client_assertion": "a.b.c", "client_assertion_type": _JWT}, 401, 50027),
        ({"client_id": "00000000-0000-0000-0000-000000000001"}, 400, 700016),
        ({"tenant": "00000000-0000-0000-0000-000000000001"}, 400, 90002),
        ({"scope": "https://example.net/.default"}, 400, 500011),
        ({"scope": "User.Read.All"}, 400, 1002012),
        ({"scope": ""}, 400, 900144),
        ({"grant_type": "password"}, 400, 70003),
    ],
)
def test_each_mistake_has_its_aadsts_code(
    client: Any, form: dict[str, str], status: int, number: int
) -> None:
    """A refusal names the mistake by number, in the code list and in the text."""
    answer = client.token(client.tenant["graph_url"], **form)

    assert answer.status_code == status
    assert answer.json()["error_codes"] == [number]
    assert answer.json()["error_description"].startswith(f"AADSTS{number}: ")


def test_the_first_version_gives_numbers_as_strings(client: Any) -> None:
    """The v1 end-point takes a resource and answers with strings, as documented."""
    tenant = client.tenant
    url = f"{tenant['authority']}/{tenant['tenant_id']}/oauth2/token"
    form = {
        "grant_type": "client_credentials",
        "client_id": tenant["client_id"],
        "client_secret": tenant["client_secret"],
        "resource": "https://manage.office.com",
    }

    answer = client.session.post(url, data=form).json()

    assert (answer["expires_in"], answer["resource"]) == ("3599", "https://manage.office.com")


def test_a_token_ends_after_an_hour(client: Any, clock: Any) -> None:
    """Both services refuse an expired token, each in its own words."""
    assert client.graph("GET", "/organization").status_code == 200
    assert client.activity("GET", "subscriptions/list").status_code == 200

    clock.advance(timedelta(hours=1, seconds=1))

    refused = client.graph("GET", "/organization")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")
    refused = client.activity("GET", "subscriptions/list")
    assert (refused.status_code, refused.json()) == (
        401,
        {"Message": "Authorization has been denied for this request."},
    )


def test_a_token_of_one_service_is_of_no_use_at_the_other(client: Any) -> None:
    """The audience is checked."""
    graph = client.token(client.tenant["graph_url"]).json()["access_token"]
    activity = client.token(client.tenant["activity_url"]).json()["access_token"]

    def status(url: str, token: str) -> int:
        answer: requests.Response = client.session.get(url, headers={"Authorization": f"Bearer {token}"})
        return answer.status_code

    assert status(f"{client.feed}/subscriptions/list", graph) == 401
    assert status(f"{client.tenant['graph_url']}/v1.0/organization", activity) == 401


def test_a_forged_token_is_refused(client: Any) -> None:
    """A changed claim breaks the signature."""
    token = client.token(client.tenant["graph_url"]).json()["access_token"]
    head, claims, signature = token.split(".")
    forged = f"{head}.{claims[:-2]}AA.{signature}"

    answer = client.session.get(
        f"{client.tenant['graph_url']}/v1.0/organization", headers={"Authorization": f"Bearer {forged}"}
    )

    assert answer.status_code == 401


def test_an_unknown_address_has_one_code(client: Any) -> None:
    """404, and the text and the list of codes say the same."""
    answer = client.session.get(f"{client.tenant['authority']}/nowhere")

    assert (answer.status_code, answer.json()["error_codes"]) == (404, [90002])
    assert answer.json()["error_description"].startswith("AADSTS90002: No such address.")
    assert answer.json()["error_description"].count("AADSTS") == 1
