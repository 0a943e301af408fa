"""Defender for Endpoint: machines, and what is done to them. Not Graph: its own host, token and errors.

https://learn.microsoft.com/defender-endpoint/api/exposed-apis-list
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, urlencode

from counterplay import (
    BlockedError,
    ConfigError,
    Context,
    GoneError,
    JsonObject,
    PermanentError,
    RejectedError,
    RetryableError,
)
from counterplay_m365.answers import content_object
from counterplay_m365.graph import literal, segment
from counterplay_m365.tenant import ENDPOINT, tenant

ACTIVE = ("Pending", "InProgress")
_DONE = (*ACTIVE, "Succeeded")
_READ = "Machine.Read.All"
_ISOLATE = "Machine.Isolate"
_IMPOSSIBLE = {
    "OsPlatformNotSupported": "the system of this machine cannot be isolated",
    "ClientVersionNotSupported": "the Defender client of this machine is too old: update it first",
}
Verb = Literal["isolate", "unisolate"]


class Defender:
    """A client for the machines of the tenant of a context."""

    def __init__(self, context: Context) -> None:
        self._http = context.http
        self._root = tenant(context).defender_url
        if not self._root:
            raise ConfigError("Defender for Endpoint has no API in the cloud of this connection")

    def machine(self, *, machine_id: str | None, device_id: str | None) -> JsonObject:
        """A machine by its own id, or by the Entra id of the device. GoneError: Defender knows none."""
        if machine_id:
            what = f"the machine {machine_id!r}"
            return self._read(f"/api/machines/{segment(machine_id)}", {}, what)
        what = f"a machine with the device id {device_id!r}"
        query = {"$filter": f"aadDeviceId eq {literal(str(device_id))}"}
        found = self._list("/api/machines", query, what)
        if not found:
            raise GoneError(f"{what} is not onboarded to Defender for Endpoint")
        return max(found, key=lambda one: str(one.get("lastSeen") or ""))  # one that was onboarded anew

    def actions(self, machine_id: str) -> list[JsonObject]:
        """What was done to a machine, the newest first."""
        query = {"$filter": f"machineId eq {literal(machine_id)}"}
        found = self._list("/api/machineactions", query, f"the actions on the machine {machine_id!r}")
        return sorted(found, key=lambda one: str(one.get("creationDateTimeUtc") or ""), reverse=True)

    def act(self, verb: Verb, machine_id: str, values: JsonObject) -> JsonObject:
        """Ask for an isolation or a release; the action. RejectedError: one is under way, or impossible."""
        url = f"{self._root}/api/machines/{segment(machine_id)}/{verb}"
        place = f"{ENDPOINT}, asked to {verb} a machine,"
        try:
            response = self._http.request("POST", url, json=values)
            return content_object(response, place) if response.content.strip() else {}
        except RejectedError as error:
            if error.code in _IMPOSSIBLE:
                error.hint = _IMPOSSIBLE[error.code]
            raise
        except BlockedError as error:
            raise _explained(error, _ISOLATE) from error
        except GoneError as error:
            raise _gone(f"the machine {machine_id!r}", error) from error

    def _read(self, path: str, query: Mapping[str, str], what: str) -> JsonObject:
        parameters = f"?{urlencode(query, quote_via=quote, safe='$')}" if query else ""
        try:
            response = self._http.request("GET", f"{self._root}{path}{parameters}")
        except BlockedError as error:
            raise _explained(error, _READ) from error
        except GoneError as error:
            raise _gone(what, error) from error
        return content_object(response, f"{ENDPOINT}, asked for {what},")

    def _list(self, path: str, query: Mapping[str, str], what: str) -> list[Any]:
        found = self._read(path, query, what).get("value")
        if not isinstance(found, list):
            raise RetryableError(f"{ENDPOINT}, asked for {what}, answered no list")
        return found


def isolated(actions: list[JsonObject]) -> JsonObject | None:
    """The isolation that holds, or is on its way; None when the machine is free."""
    for one in actions:
        if one.get("type") in ("Isolate", "Unisolate") and one.get("status") in _DONE:
            return one if one["type"] == "Isolate" else None
    return None


def _explained(error: BlockedError, permission: str) -> BlockedError | PermanentError:
    if error.status == 403 and error.hint is None:
        error.hint = f"grant the application permission {permission} of {ENDPOINT} with admin consent"
    return error


def _gone(what: str, error: GoneError) -> GoneError:
    return GoneError(
        f"{what} is unknown to Defender for Endpoint: {error.message}",
        status=error.status,
        code=error.code,
        request_id=error.request_id,
    )
