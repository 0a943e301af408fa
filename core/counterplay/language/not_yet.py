"""Forms of the language that this version of the runtime does not execute: one row each.

The schema and the checker know the whole language; a later version deletes rows here. Each row says
what this version runs instead, and what to write.
"""

from __future__ import annotations

NOT_YET: dict[str, tuple[str, str]] = {
    "verify": ("effects without reading them back only", "remove `verify`"),
}
