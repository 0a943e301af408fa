"""A playbook as a tree of lines, and as a Mermaid flow chart for documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from counterplay.language import Labels, Playbook, Step, Use, duration_text
from counterplay.modules import Action, Control
from counterplay.plugins import PluginHost


def tree(playbook: Playbook, host: PluginHost) -> Iterator[str]:
    """What the playbook does, line by line; what stands inside a step is indented below it."""
    yield f"trigger  {describe(playbook.trigger, host)}"
    if playbook.trigger.on == "updates":
        yield "         updates of an occurrence start runs, too"
    if playbook.filter is not None:
        yield f"filter   {playbook.filter.source}"
    for step in playbook.batch_steps:
        yield f"batch    {_head(step, host)}"
    if playbook.once_per is not None:
        window = duration_text(playbook.once_per.window)
        yield f"once per {playbook.once_per.key.source} within {window}"
    if playbook.run_steps:
        yield "── each event that is left becomes a durable run ──"
        yield from _branches(playbook.run_steps, host)
    if playbook.finally_steps:
        yield "finally"
        yield from _branches(playbook.finally_steps, host)
    for use in playbook.sinks:
        yield f"sink     {describe(use, host)}"


def _branches(steps: Sequence[Step], host: PluginHost) -> Iterator[str]:
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        yield f"{'└─' if last else '├─'} {_head(step, host)}"
        inside = "   " if last else "│  "
        for line in _inside(step, host):
            yield inside + line


def _inside(step: Step, host: PluginHost) -> Iterator[str]:
    handlers = step.on_error if isinstance(step.on_error, tuple) else ()
    yield from _branches(step.steps, host)
    if handlers:
        yield "on error"
        yield from _branches(handlers, host)


def _head(step: Step, host: PluginHost) -> str:
    if step.use is not None:
        text = f"{step.id}: {describe(step.use, host)}"
    elif step.form == "parallel":
        text = f"{step.id}: side by side"
    else:
        text = f"{step.id}: a group"
    return text + "".join(f", {one}" for one in _modifiers(step))


def _modifiers(step: Step) -> Iterator[str]:
    if step.for_each is not None:
        at_once = f", {step.max_parallel} at once" if step.max_parallel > 1 else ""
        yield f"for each of {step.for_each.source}{at_once}"
    if step.when is not None:
        yield f"when {step.when.source}"
    if step.retry is not None:
        yield f"up to {step.retry.attempts} attempts"
    if step.timeout is not None:
        yield f"at most {duration_text(step.timeout)}"
    if step.verify:
        yield "fails where it does not hold"
    if step.verify_after:
        yield f"looked at again after {', '.join(step.verify_after)}"
    if step.on_error == "continue":
        yield "goes on after an error"


def describe(use: Use, host: PluginHost) -> str:
    """The module, its connection, whether it changes something, and its own summary."""
    info = host.module(use.uses)
    text = use.uses
    if isinstance(use.connection, Labels):
        text += f" on every connection labelled {', '.join(use.connection.labels)}"
    elif use.connection is not None:
        text += f" on {use.connection}"
    if issubclass(info.cls, Control):
        pass
    elif issubclass(info.cls, Action) and info.cls.effect:
        text += " [changes something]"
    return f"{text} - {info.summary}"


def mermaid(playbook: Playbook, host: PluginHost) -> str:
    """A flow chart: one node a step, groups and branches as boxes."""
    chart = _Chart(host)
    chart.line("flowchart TD")
    last = chart.node(f"{playbook.trigger.uses}", "([{}])")
    if playbook.filter is not None:
        last = chart.after(last, chart.node(playbook.filter.source, "{{{{{}}}}}"))
    for step in playbook.batch_steps:
        last = chart.after(last, chart.node(step.use.uses if step.use else step.id, "[/{}/]"))
    ends = chart.sequence(playbook.run_steps, [last])
    if playbook.finally_steps:
        ends = chart.box("finally", lambda: chart.sequence(playbook.finally_steps, ends))
    for use in playbook.sinks:
        sink = chart.node(use.uses, "[({})]")
        for end in ends:
            chart.after(end, sink)
    return "\n".join(chart.lines)


class _Chart:
    def __init__(self, host: PluginHost) -> None:
        self.host = host
        self.lines: list[str] = []
        self.nodes = 0
        self.depth = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)
        self.depth = max(self.depth, 1)

    def node(self, text: str, shape: str) -> str:
        self.nodes += 1
        name = f"n{self.nodes}"
        quoted = '"' + text.replace('"', "#quot;").replace("\n", " ") + '"'
        self.line(name + shape.format(quoted))
        return name

    def after(self, one: str, other: str, label: str = "") -> str:
        self.line(f"{one} -->{f'|{_label(label)}|' if label else ''} {other}")
        return other

    def box(self, title: str, inside: Callable[[], list[str]]) -> list[str]:
        self.nodes += 1
        self.line(f'subgraph g{self.nodes}["{title.replace(chr(34), "#quot;")}"]')
        self.depth += 1
        ends = inside()
        self.depth -= 1
        self.line("end")
        return ends

    def sequence(self, steps: Sequence[Step], before: list[str]) -> list[str]:
        for step in steps:
            before = self.step(step, before)
        return before

    def step(self, step: Step, before: list[str]) -> list[str]:
        if step.when is not None:
            asked = self.node(step.when.source, "{{{}}}")
            for one in before:
                self.after(one, asked)
            return [*self.form(step, [asked], "yes"), asked]
        return self.form(step, before, "")

    def form(self, step: Step, before: list[str], label: str) -> list[str]:
        title = ", ".join([step.id, *(one for one in _modifiers(step) if not one.startswith("when "))])
        if step.form == "parallel":
            ends = self.box(title, lambda: [end for one in step.steps for end in self.step(one, before)])
        elif step.form == "group":
            ends = self.box(title, lambda: self.sequence(step.steps, before))
        else:
            assert step.use is not None
            cls = self.host.module(step.use.uses).cls
            shape = "[[{}]]" if issubclass(cls, Action) and cls.effect else "[{}]"
            own = self.node(f"{title}: {step.use.uses}", shape)
            for one in before:
                self.after(one, own, label)
            ends = [own]
        if isinstance(step.on_error, tuple) and step.on_error:
            handlers = step.on_error
            handled = self.box(f"on error of {step.id}", lambda: self.sequence(handlers, ends))
            return [*ends, *handled]
        return ends


def _label(text: str) -> str:
    return text.replace("|", "/")
