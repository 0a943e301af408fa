"""Forms of the language that this version of the runtime does not execute: one row each.

The schema and the checker know the whole language; a later version deletes rows here. Each row says
what this version runs instead, and what to write.
"""

from __future__ import annotations

NOT_YET: dict[str, tuple[str, str]] = {
    "parallel": ("steps one after the other only", "write the branches as steps of their own"),
    "steps": (
        "module steps only, no groups",
        "write the steps of the group one by one, each with its `when`",
    ),
    "for_each": ("a step once for each event only", "use a trigger that emits an event for each element"),
    "max_parallel": ("a step once for each event only", "remove `max_parallel`"),
    "retry": ("a step with the retries of its connection only", "remove `retry`"),
    "timeout": ("a step with the time limits of its connection only", "remove `timeout`"),
    "on_error": (
        "`on_error: stop` and `on_error: continue` only",
        "move the steps behind this one, with a `when`",
    ),
    "verify": ("effects without reading them back only", "remove `verify`"),
    "finally": ("steps, then sinks only", "move the steps of `finally` to the end of `steps`"),
    "once_per": ("one run for each occurrence only", "remove `once_per`"),
    "trigger.on": ("the first delivery of an occurrence only", "remove `on`"),
    "sink step": ("sinks under `sinks:` only", "move this one there"),
}
