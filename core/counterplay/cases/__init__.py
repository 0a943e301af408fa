"""Tests of playbooks: cases in YAML that are tried offline, in an empty store and in a time of their own.

`runner.Bench` reads files (`read`) and plays cases (`play`); `compare` holds what was seen against what
was expected.
"""
