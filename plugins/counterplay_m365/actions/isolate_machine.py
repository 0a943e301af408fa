"""The action `m365.isolate_machine`: cut a machine off the network."""

from __future__ import annotations

from counterplay import JsonObject
from counterplay_m365.actions.machine_action import MachineAction

SCOPES = {"full": "Full", "selective": "Selective", "unmanaged": "UnManagedDevice"}


class IsolateMachine(MachineAction):
    """Isolate a machine from the network, except from Defender for Endpoint.

    `selective` keeps Outlook and Teams; `unmanaged` lets other machines avoid a device that is not
    onboarded. Defender takes the request and carries it out when the machine is there: `confirmed` is false
    until then. A machine that is isolated, or is about to be, is not isolated twice. Taken back by
    `m365.release_machine`.

    Needs:
        Application permissions `Machine.Isolate` and `Machine.Read.All` of Defender for Endpoint.
    Result:
        `{"machine_id", "name", "action_id", "status": "requested" | "in progress" | "done", "confirmed":
        bool, "note": str | null}`
    Source:
        https://learn.microsoft.com/defender-endpoint/api/isolate-machine
    """

    name = "isolate_machine"
    verb = "isolate"
    wanted = True
    opposite = "m365.release_machine"

    def values(self) -> JsonObject:
        return {**super().values(), "IsolationType": SCOPES[self.arguments.get("isolation_type") or "full"]}
