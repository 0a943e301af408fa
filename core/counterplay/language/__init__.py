"""The playbook language: YAML in, checked playbooks with compiled conditions and templates out."""

from counterplay.language.arguments import with_defaults
from counterplay.language.build import expressions_of, from_document
from counterplay.language.connections import ConnectionCatalogue, connection_of
from counterplay.language.durations import DURATION_PATTERN, duration_text, parse_duration
from counterplay.language.expressions import (
    Condition,
    ExpressionError,
    Expressions,
    ExpressionSyntaxError,
    Template,
    Truth,
)
from counterplay.language.findings import Finding, PlaybookError
from counterplay.language.load import load, load_text, playbook_schema
from counterplay.language.model import (
    ConnectionRef,
    Labels,
    OncePer,
    Playbook,
    PlaybookSet,
    Retry,
    Step,
    TriggerUse,
    Use,
)

__all__ = [
    "DURATION_PATTERN",
    "Condition",
    "ConnectionCatalogue",
    "ConnectionRef",
    "ExpressionError",
    "ExpressionSyntaxError",
    "Expressions",
    "Finding",
    "Labels",
    "OncePer",
    "Playbook",
    "PlaybookError",
    "PlaybookSet",
    "Retry",
    "Step",
    "Template",
    "TriggerUse",
    "Truth",
    "Use",
    "connection_of",
    "duration_text",
    "expressions_of",
    "from_document",
    "load",
    "load_text",
    "parse_duration",
    "playbook_schema",
    "with_defaults",
]
