"""std.manual: the trigger of playbooks that somebody starts."""

from counterplay import Trigger


class Manual(Trigger):
    """Emit nothing by itself: events come by hand, with `playbook run NAME --event FILE`.

    Every event given by hand starts a run; the same file given twice starts two.
    """

    name = "manual"
