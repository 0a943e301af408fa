"""The rules that every module keeps, each a function over a `Case` that raises `Broken` or returns."""

from counterplay.testing.rules._rule import RULES, Broken, NotApplicable, Rule, rule

from counterplay.testing.rules import declared, effects, errors, imports, secrets, sources  # isort: skip

__all__ = ["RULES", "Broken", "NotApplicable", "Rule", "rule"]

_ = (declared, effects, errors, imports, secrets, sources)  # importing them fills RULES
