"""Sign-in by device code: codes, those who enter them, and what the token is good for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from counterplay_sim.device_code import FIRST_PARTY

CLIENT = next(iter(FIRST_PARTY))
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def ask(client: Any, **form: str) -> Any:
    url = f"{client.tenant['authority']}/{client.tenant['tenant_id']}/oauth2/v2.0/devicecode"
    wanted = f"{client.tenant['graph_url']}/Application.ReadWrite.All openid profile offline_access"
    return client.session.post(url, data={"client_id": CLIENT, "scope": wanted, **form})


def redeem(client: Any, code: str, app: str = CLIENT) -> Any:
    url = f"{client.tenant['authority']}/{client.tenant['tenant_id']}/oauth2/v2.0/token"
    return client.session.post(url, data={"grant_type": GRANT, "client_id": app, "device_code": code})


def number(answer: Any) -> int:
    assert answer.status_code == 400, answer.text
    found: int = answer.json()["error_codes"][0]
    return found


def test_a_token_is_for_the_person_the_client_and_what_was_asked(client: Any) -> None:
    """Pending until the code is entered; good once, and for no more than its scopes."""
    given = ask(client).json()
    assert number(redeem(client, given["device_code"])) == 70016
    page = client.session.get(given["verification_uri"], params={"user_code": given["user_code"].lower()})
    assert page.status_code == 200
    assert given["user_code"] in given["message"]

    answer = redeem(client, given["device_code"]).json()

    assert answer["scope"] == f"{client.tenant['graph_url']}/Application.ReadWrite.All"
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    root = f"{client.tenant['graph_url']}/v1.0"
    made = client.session.post(f"{root}/applications", json={"displayName": "x"}, headers=headers)
    assert made.status_code == 201
    assert client.session.get(f"{root}/users", headers=headers).status_code == 403
    assert number(redeem(client, given["device_code"])) == 70018


def test_codes_that_are_wrong_or_old_give_nothing(client: Any, clock: Any) -> None:
    """Neither a code of nobody, nor one that another client shows, nor one that is too old."""
    given = ask(client).json()
    page = client.session.get(given["verification_uri"], params={"user_code": "WRONG"})

    assert page.status_code == 400
    assert number(redeem(client, "nobody's")) == 70018
    assert number(redeem(client, given["device_code"], list(FIRST_PARTY)[1])) == 70018
    clock.advance(timedelta(minutes=16))
    assert number(redeem(client, given["device_code"])) == 70019


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"client_id": ""}, 900144),
        ({"client_id": "11111111-0000-4000-8000-000000000000"}, 700016),
        ({"scope": "openid"}, 70011),
        ({"scope": "https://example.net/x"}, 500011),
    ],
)
def test_what_cannot_be_signed_in_for_is_refused_at_once(
    client: Any, form: dict[str, str], expected: int
) -> None:
    """With the number that Entra ID gives."""
    assert number(ask(client, **form)) == expected
