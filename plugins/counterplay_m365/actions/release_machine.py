"""The action `m365.release_machine`: let a machine on the network again."""

from __future__ import annotations

from counterplay import JsonObject
from counterplay_m365.actions.isolate_machine import SCOPES
from counterplay_m365.actions.machine_action import MachineAction


class ReleaseMachine(MachineAction):
    """Release a machine from isolation, after `m365.isolate_machine`.

    Releasing what is free, or about to be, changes nothing on it. Taken back by `m365.isolate_machine`.

    Needs:
        Application permissions `Machine.Isolate` and `Machine.Read.All` of Defender for Endpoint.
    Result:
        `{"machine_id", "name", "action_id", "status": "requested" | "in progress" | "done", "confirmed":
        bool, "note": str | null}`
    Source:
        https://learn.microsoft.com/defender-endpoint/api/unisolate-machine
    """

    name = "release_machine"
    verb = "unisolate"
    wanted = False
    opposite = "m365.isolate_machine"

    def given(self, before: JsonObject) -> JsonObject:
        scopes = {theirs: ours for ours, theirs in SCOPES.items()}
        return {**super().given(before), "isolation_type": scopes.get(str(before.get("scope")), "full")}
