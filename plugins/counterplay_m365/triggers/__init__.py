"""Triggers: what Microsoft 365 reports."""
