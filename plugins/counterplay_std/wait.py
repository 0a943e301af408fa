"""std.wait: let time pass."""

from counterplay import Control, Directive, Pause, StepContext


class Wait(Control):
    """Wait for a while; a long wait survives restarts and holds nothing.

    Result:
        `{"until": str}`, the time at which the run went on.
    """

    name = "wait"

    def direct(self, context: StepContext) -> Directive:
        from counterplay.language import parse_duration  # costs more than all modules of this plugin

        return Pause(parse_duration(self.arguments["duration"]))
