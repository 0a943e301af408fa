"""Legacy Graph alerts: a name that is answered with the migration, and a converter for stored ones."""

import json
from pathlib import Path

import jsonschema
import pytest

from counterplay import ConfigError
from counterplay.language import load
from counterplay.language.findings import PlaybookError
from counterplay.plugins import PluginHost
from counterplay_m365.entities import m365_addresses, m365_devices
from counterplay_m365.legacy import m365_from_legacy_alert

CONTRACT = Path(__file__).parents[2] / "contracts" / "graph-v1.0.openapi.json"
LEGACY = {
    "id": "2517-abc",
    "azureTenantId": "11111111-2222-4333-8444-555555555555",
    "category": "ImpossibleTravel",
    "closedDateTime": None,
    "comments": ["looked at it"],
    "confidence": 50,
    "createdDateTime": "2024-01-02T03:04:05Z",
    "eventDateTime": "2024-01-02T03:00:00Z",
    "feedback": "benignPositive",
    "incidentIds": ["28"],
    "lastModifiedDateTime": "2024-01-02T04:00:00Z",
    "recommendedActions": ["call the user", "reset the password"],
    "severity": "high",
    "status": "newAlert",
    "title": "Impossible travel activity",
    "userStates": [{"aadUserId": "oid-1", "userPrincipalName": "ana@contoso.com", "logonIp": "8.8.8.8"}],
    "hostStates": [{"fqdn": "pc.contoso.com", "privateIpAddress": "10.0.0.7"}],
    "fileStates": [{"name": "x.exe", "fileHash": {"hashType": "sha256", "hashValue": "ab"}}],
    "networkConnections": [{"destinationAddress": "9.9.9.9"}],
    "cloudAppStates": [{"destinationServiceName": "Exchange"}],
    "vendorInformation": {"provider": "MCAS", "vendor": "Microsoft"},
}


def test_check_answers_the_old_name_with_the_migration(tmp_path: Path) -> None:
    """The place, that it is gone, and which trigger and fields replace it."""
    file = tmp_path / "old.yaml"
    file.write_text(
        "name: old\ntrigger: {uses: m365.alerts_legacy, connection: c}\n"
        "sinks: [{uses: std.jsonl, with: {path: out}}]\n"
    )

    with pytest.raises(PlaybookError) as caught:
        load(file, PluginHost.load())

    said = str(caught.value)
    assert f"{file}:2:17: m365.alerts_legacy does not exist any more" in said
    assert "use m365.alerts" in said
    assert "closedDateTime is now resolvedDateTime" in said


def test_other_names_are_no_names() -> None:
    """Only what existed is explained."""
    with pytest.raises(ConfigError, match=r"no module is called 'm365\.alerts_legac'"):
        PluginHost.load().module("m365.alerts_legac")


def test_a_stored_alert_takes_the_shape_of_alerts_v2() -> None:
    """It validates against Microsoft's contract, and the evidence helpers read it."""
    found = m365_from_legacy_alert(LEGACY)

    document = json.loads(CONTRACT.read_text("utf-8"))
    schema = {
        "$ref": "#/components/schemas/microsoft.graph.security.alert",
        "components": document["components"],
    }
    jsonschema.Draft202012Validator(schema).validate(found)
    assert (found["status"], found["incidentId"], found["serviceSource"]) == (
        "new",
        "28",
        "microsoftDefenderForCloudApps",
    )
    assert (found["classification"], found["determination"]) == (
        "informationalExpectedActivity",
        "confirmedActivity",
    )
    assert found["recommendedActions"] == "call the user\nreset the password"
    assert found["additionalData"] == {"confidence": 50}
    assert m365_addresses(found) == ["8.8.8.8", "10.0.0.7", "9.9.9.9"]
    assert m365_devices(found)[0]["name"] == "pc.contoso.com"
    assert found["evidence"][0]["userAccount"]["azureAdUserId"] == "oid-1"


@pytest.mark.parametrize("alert", [{}, {"userStates": None, "status": 5}, None, []])
def test_an_alert_that_lacks_everything_is_converted_too(alert: object) -> None:
    """Stored data are as they are."""
    found = m365_from_legacy_alert(alert)

    assert found == {} or found["evidence"] == []
