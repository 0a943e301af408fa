"""std.manual: the trigger of playbooks that somebody starts."""

import pytest

from counterplay import ConfigError, Event, FeedTrigger, PollTrigger, PushTrigger
from counterplay_std.manual import Manual


def test_it_belongs_to_no_trigger_base_that_fetches_events() -> None:
    """The host has nothing to ask it: its events only come by hand."""
    assert Manual.kind == "trigger"
    assert not issubclass(Manual, (FeedTrigger, PollTrigger, PushTrigger))


def test_the_same_event_given_twice_is_no_duplicate() -> None:
    """Neither delivery nor run has a key, so that a person may start a playbook twice."""
    event = Event(b'{"id":"a"}')
    assert Manual({}).delivery_key(event) is None
    assert Manual({}).run_key(event) is None


def test_it_takes_no_arguments(accept) -> None:
    """An argument is a mistake, and is refused by the schema."""
    accept("std.manual", {})
    with pytest.raises(ConfigError, match="'interval' was unexpected"):
        accept("std.manual", {"interval": "60s"})
