"""`playbook up`: the service."""

from __future__ import annotations

import logging
import sys
import threading

import click

from counterplay.cli.output import say


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:8787",
    show_default=True,
    metavar="HOST:PORT",
    help="Where health, metrics, push triggers and approvals are served (plain HTTP).",
)
def up(listen: str) -> None:
    """Run all enabled playbooks of the workspace until Ctrl-C or SIGTERM.

    The workspace's own playbooks are enabled unless `playbooks:` in counterplay.yaml disables them; it
    enables shipped ones, and gives inputs and connections. A change of a file takes effect at once; one
    that is not valid leaves the last good version in place and says so here and under /health.

    /health says what runs, /metrics counts, /push/TRIGGER/CONNECTION takes events, /approvals takes
    answers by link. Exits 0 when it was asked to end, 1 when it had to end, 2 when nothing can run.
    """
    from counterplay.cli.loading import load_playbook, open_to_run
    from counterplay.cli.run import signals
    from counterplay.runtime.service import Service
    from counterplay.secrets import MaskingFilter

    stop = threading.Event()

    def told(text: str) -> None:
        opener = service.opener
        say(opener.secrets.mask(text) if opener is not None else text, err=True)

    class Masked(logging.Filter):
        """Masks with the secrets of the session that runs at that moment."""

        def filter(self, record: logging.LogRecord) -> bool:
            opener = service.opener
            return MaskingFilter(opener.secrets).filter(record) if opener is not None else True

    service = Service(open_to_run, load_playbook, listen, stop, told)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Masked())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with signals(stop):
            code = service.run()
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    sys.exit(code)
