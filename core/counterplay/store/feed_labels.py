"""How people know a feed."""

from __future__ import annotations

import json
from typing import Any


def feed_label(row: Any) -> str:
    """`m365.audit_log contoso Audit.Exchange`: trigger, connection, feed-key arguments, generation."""
    arguments = json.loads(row.key)
    detail = [
        item if isinstance(item, str) else json.dumps(item)
        for value in arguments.values()
        for item in (value if isinstance(value, list) else [value])
    ]
    generation = [f"#{row.generation}"] if row.generation > 1 else []
    return " ".join(filter(None, (row.trigger, row.connection, *detail, *generation)))
