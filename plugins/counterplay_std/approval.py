"""std.approval: ask people."""

from counterplay import Ask, Control, Directive, StepContext


class Approval(Control):
    """Ask people a question, and wait for their answer without holding anything.

    The run is a parked row until somebody answers (`playbook approve`, `playbook deny`) or the time is
    up. It survives restarts, and editing the playbook does not touch the question.

    Result:
        `{"approved": bool, "by": [str], "comment": str, "answers": object | null, "at": str,
        "timed_out": bool}`; `answers` is what was filled into the `form`.
    """

    name = "approval"

    def direct(self, context: StepContext) -> Directive:
        from counterplay.language import parse_duration  # costs more than all modules of this plugin

        timeout = self.arguments.get("timeout")
        return Ask(
            question=self.arguments["question"],
            timeout=parse_duration(timeout) if timeout is not None else None,
            on_timeout=self.arguments.get("on_timeout", "deny"),
            people=self.arguments.get("people", 1),
            form=self.arguments.get("form"),
        )
