"""Scenarios: from a seed and a moment to a whole tenant, the same one every time.

`cast` invents the people, their mailboxes' rules and sessions, `noise` a day of their work, `takeover`
the attack on one of them, and `build` puts it together.
"""
