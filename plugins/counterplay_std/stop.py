"""std.stop: end the run."""

from counterplay import Control, Directive, StepContext, Stop


class StopRun(Control):
    """End the run here, well or not; `finally` and the sinks still follow.

    In a branch or an element of a loop it ends the whole run: what works finishes, nothing more begins.

    Result:
        `{"status": str, "reason": str}`
    """

    name = "stop"

    def direct(self, context: StepContext) -> Directive:
        return Stop(self.arguments.get("status", "succeeded"), self.arguments.get("reason", ""))
