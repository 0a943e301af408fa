"""Tests of playbooks: cases in YAML that are tried offline, in an empty store and in a time of their own."""

from counterplay.cases.compare import differences
from counterplay.cases.model import Answer, Case, Given, GivenEvent, Saying, TestFile
from counterplay.cases.play import play
from counterplay.cases.read import read_cases
from counterplay.cases.seen import Seen, SeenRun

__all__ = [
    "Answer",
    "Case",
    "Given",
    "GivenEvent",
    "Saying",
    "Seen",
    "SeenRun",
    "TestFile",
    "differences",
    "play",
    "read_cases",
]
