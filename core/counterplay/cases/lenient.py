"""Recorded answers hold what the playbook looks at; what else the module would give is not asked for."""

from __future__ import annotations

from typing import Any


def lenient(schema: Any) -> Any:
    """The schema without what it requires."""
    if isinstance(schema, dict):
        return {
            key: lenient(value)
            for key, value in schema.items()
            if not (key == "required" and isinstance(value, list))
        }
    if isinstance(schema, list):
        return [lenient(one) for one in schema]
    return schema
