"""Actions: what can be read and changed in Microsoft 365 for one event."""
