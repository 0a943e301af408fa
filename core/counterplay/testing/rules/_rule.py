"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from counterplay.modules import Kind

if TYPE_CHECKING:
    from counterplay.testing.case import Case

Scope = Literal["module", "plugin"]


class Broken(AssertionError):
    """The module breaks the rule; the message says where, how, and what to do."""


class NotApplicable(Exception):
    """There is nothing that the rule could be held against; the message says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A promise. `check` raises Broken; `text` is the promise in one sentence.

    A rule of scope `plugin` is held once, against the plugin's first module.
    """

    name: str
    text: str
    kinds: frozenset[Kind]
    scope: Scope
    check: Callable[[Case], None]


RULES: dict[str, Rule] = {}
_ALL: tuple[Kind, ...] = ("trigger", "transform", "action", "sink", "connection")


def rule(*kinds: Kind, scope: Scope = "module") -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Make a rule of a function: its name with dashes, its docstring's first line, all kinds by default."""

    def register(check: Callable[[Case], None]) -> Callable[[Case], None]:
        name = check.__name__.replace("_", "-")
        text = (check.__doc__ or "").strip().split("\n", 1)[0]
        RULES[name] = Rule(name, text, frozenset(kinds or _ALL), scope, check)
        return check

    return register
