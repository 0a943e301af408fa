"""std.run_playbook: call another playbook."""

from counterplay import Call, Control, Directive, StepContext


class RunPlaybook(Control):
    """Run another playbook for this event, or for one of your own, and wait for its end.

    It becomes a run inside this one, with its own steps, `finally` and sinks; its trigger, filter and
    `once_per` play no part. It is read when the step begins. A called run that fails fails the step.

    Result:
        `{"run": str, "status": str, "error": str | null, "steps": {id: {"status", "result"}}}`
    """

    name = "run_playbook"

    def direct(self, context: StepContext) -> Directive:
        return Call(
            self.arguments["playbook"], self.arguments.get("inputs") or {}, self.arguments.get("event")
        )
