"""The action `m365.get_machine`: what does Defender know of this machine?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.defender import Defender, isolated


class GetMachine(Action):
    """Read a machine from Defender for Endpoint, and whether it is isolated.

    Needs:
        Application permission `Machine.Read.All` of Defender for Endpoint.
    Result:
        `{"machine_id", "device_id", "name", "system", "health", "risk", "last_seen", "isolated": bool,
        "confirmed": bool}`; `confirmed` is false while an isolation is only asked for.
    Source:
        https://learn.microsoft.com/defender-endpoint/api/get-machine-by-id
    """

    name = "get_machine"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        defender = Defender(context)
        found = defender.machine(
            machine_id=self.arguments.get("machine_id"), device_id=self.arguments.get("device_id")
        )
        holding = isolated(defender.actions(found["id"]))
        return {
            "machine_id": found["id"],
            "device_id": found.get("aadDeviceId"),
            "name": found.get("computerDnsName"),
            "system": found.get("osPlatform"),
            "health": found.get("healthStatus"),
            "risk": found.get("riskScore"),
            "last_seen": found.get("lastSeen"),
            "isolated": holding is not None,
            "confirmed": holding is not None and holding.get("status") == "Succeeded",
        }
