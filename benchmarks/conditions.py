"""What a condition costs an event: compiled, and in the Jinja2 sandbox.

Run `python benchmarks/conditions.py`. Each line is the median of nine rounds in which the two
engines take turns, so that a slow moment of the machine meets both.
"""

from __future__ import annotations

import json
import statistics
import sys
import timeit
from collections.abc import Callable
from typing import Any

from counterplay.language import Expressions

ROUNDS = 9
EVENT = {
    "Id": "5a1f2c4e-3b6d-4f7a-9c21-0e8d7b6a5f43",
    "Operation": "New-InboxRule",
    "Workload": "Exchange",
    "RecordType": 1,
    "UserId": "ada@contoso.com",
    "ClientIP": "203.0.113.7",
    "ResultStatus": "Succeeded",
    "Actor": [{"ID": "ada@contoso.com", "Type": 5}],
    "Parameters": [{"Name": "ForwardTo", "Value": "eve@example.net"}, {"Name": "Name", "Value": "."}],
}
SCOPE = {"event": EVENT, "meta": {"content_type": "Audit.Exchange"}, "inputs": {}}
CONDITIONS = (
    "event.ResultStatus != 'Failed'",
    "event.Operation in ['New-InboxRule', 'Set-InboxRule', 'UpdateInboxRules']",
    "event.Workload == 'Exchange' and event.RecordType == 1",
    "event.UserId.endswith('@contoso.com') and event.Gone is not defined",
    "event.Missing.deeper == 'x' or meta.content_type == 'Audit.Exchange'",
    "event.Actor[0].Type == 5",
    "event.UserId | lower == 'ada@contoso.com'",
    "event.Parameters | selectattr('Name', 'eq', 'ForwardTo') | list | length > 0",
)


def microseconds(call: Callable[[], object], number: int) -> float:
    """One round: the mean of a call."""
    return timeit.timeit(call, number=number) / number * 1e6


def measure(source: str) -> dict[str, Any]:
    """Both engines on one condition."""
    expressions = Expressions()
    compiled, sandbox = expressions.condition(source), expressions.condition(source, "sandbox")
    if compiled.evaluate(SCOPE) != sandbox.evaluate(SCOPE):
        raise AssertionError(f"the engines disagree on {source}")
    fast, slow = [], []
    for _ in range(ROUNDS):
        fast.append(microseconds(lambda: compiled.evaluate(SCOPE), 20_000))
        slow.append(microseconds(lambda: sandbox.evaluate(SCOPE), 2_000))
    return {
        "condition": source,
        "engine": compiled.engine,
        "us": round(statistics.median(fast), 3),
        "sandbox_us": round(statistics.median(slow), 3),
        "ratio": round(statistics.median(slow) / statistics.median(fast), 1),
    }


def main() -> None:
    """Print a line for each condition; `--json` prints objects."""
    as_json = "--json" in sys.argv
    if not as_json:
        print(f"{'engine':9} {'us':>8} {'sandbox us':>11} {'ratio':>7}  condition")  # noqa: T201  # its output
    for source in CONDITIONS:
        row = measure(source)
        line = f"{row['engine']:9} {row['us']:8.3f} {row['sandbox_us']:11.3f} {row['ratio']:6.1f}x  {source}"
        print(json.dumps(row) if as_json else line)  # noqa: T201  # its output


if __name__ == "__main__":
    main()
