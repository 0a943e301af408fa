"""`playbook up`: one process that runs all enabled playbooks, reloads them, and answers over HTTP.

A change of a file ends the session gracefully and begins the next one with the same listener: runs that
are under way go on where they are, with the document that they began with. A file that is not valid
leaves the last good version in place.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import closing
from urllib.parse import parse_qs

from counterplay import readiness
from counterplay.budgets import Budgets
from counterplay.errors import ConfigError, CounterplayError
from counterplay.events import JsonObject, PushAnswer, PushRequest
from counterplay.runtime import metrics
from counterplay.runtime.approvals import Approvals, RefusedAnswer
from counterplay.runtime.figures import Figures, told
from counterplay.runtime.listener import Listener
from counterplay.runtime.opening import Opener
from counterplay.runtime.selection import Load, Selection, fingerprint, select
from counterplay.runtime.session import Session
from counterplay.store.approvals import ApprovalStore
from counterplay.store.database import open_database, worker_lock
from counterplay.workspace import Workspace

LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""

log = logging.getLogger("counterplay.up")


class Service:
    """Runs until `stop` is set. `told` gets a line for people at each start, change and refusal."""

    def __init__(
        self,
        workspace: Callable[[], Workspace],
        load: Load,
        listen: str,
        stop: threading.Event,
        told: Callable[[str], None],
        look_every: float = LOOK_EVERY,
    ) -> None:
        self.figures = Figures()
        self.url = ""
        self.opener: Opener | None = None
        self._workspace = workspace
        self._load = load
        self._listen = listen
        self._stop = stop
        self._told = told
        self._look_every = look_every
        self._selection: Selection | None = None
        self._latest: Session | None = None
        self._refused: str | None = None
        self._reloads = 0
        self._seen = ""  # the files as they were before they were read
        self._working = False
        self._noticed: dict[str, str] = {}

    def run(self) -> int:
        """Serve to the end; returns the exit code. ConfigError: nothing could ever run."""
        workspace = self._workspace()
        workspace.host.hook.counterplay_invocation_started(command="up", name="up")
        self._seen = fingerprint(workspace)
        selection = select(workspace, self._load, None)
        self._say(selection, None)
        pages = {
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/approvals"): self._approve,
        }
        lock = worker_lock(selection.workspace.store_url, "playbook up")
        with lock, Listener(self._listen, (), pages) as listener:
            self.url = listener.url
            self._told(f"listening on {listener.url}")
            code = 0
            while not self._stop.is_set():
                self._selection = selection
                code, selection = self._session(selection, listener)
            return code

    def _session(self, selection: Selection, listener: Listener) -> tuple[int, Selection]:
        """One session, to its end; then what is to run next."""
        ending = threading.Event()
        opener = self.opener = Opener(selection.workspace, ending)
        session = Session(
            opener,
            "up",
            list(selection.tasks.values()),
            once=False,
            stop=ending,
            command="up",
            service=listener,
            figures=self.figures,
        )
        self._latest = session
        outcome: list[int | BaseException] = []

        def work() -> None:
            try:
                outcome.append(session.run(self._started).exit_code)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=work, name="session")
        thread.start()
        following = self._until_changed(selection, thread)
        if self._stop.is_set():
            readiness.tell("STOPPING=1", "STATUS=finishing what is in flight")
        ending.set()
        thread.join()
        self._working = False
        if outcome and isinstance(outcome[0], BaseException):
            raise outcome[0]
        if following is None and not self._stop.is_set():
            raise ConfigError("the session ended by itself", hint="`playbook runs list` shows what is left")
        return 0, following or selection

    def _started(self) -> None:
        self._working = True
        assert self._selection is not None
        readiness.tell("READY=1", _status(self._selection))

    def _until_changed(self, selection: Selection, thread: threading.Thread) -> Selection | None:
        """The next selection; None when the process is asked to stop, or the session is over."""
        watched = readiness.is_watched()
        while thread.is_alive() and not self._stop.wait(self._look_every):
            if watched:
                readiness.tell("WATCHDOG=1")
            self._say_notices()
            present = fingerprint(selection.workspace)
            if present == self._seen:
                continue
            self._seen = present  # an edit while they are read is another change
            try:
                found = select(self._workspace(), self._load, selection)
            except CounterplayError as error:
                self._refused = str(error)
                self._told(f"the configuration as it was runs on: {error}")
                readiness.tell("STATUS=the configuration as it was runs on: the new one is not valid")
                continue
            self._refused = None
            self._say(found, selection)
            if found.version != selection.version:
                self._reloads += 1
                return found
            self._selection = selection = found
            readiness.tell(_status(found))
        return None

    def _say(self, found: Selection, before: Selection | None) -> None:
        old = before.out if before is not None else {}
        for name, why in found.out.items():
            if old.get(name) != why:
                self._told(f"{name}: {why}")
        if before is None or found.version != before.version:
            count = len(found.tasks)
            self._told(f"{count} playbook{'' if count == 1 else 's'}: {', '.join(found.tasks) or 'none'}")
        if before is None and found.workspace.root is None:
            self._told(
                "there is no counterplay.yaml here: make a workspace with `playbook init`, then start again"
            )

    def _say_notices(self) -> None:
        """What came up since the last look: a question to people, a run that failed, a sink that refuses."""
        present = self.figures.lines
        new = {about: text for about, text in present.items() if self._noticed.get(about) != text}
        self._noticed = present
        for line in told(new):
            self._told(line)

    # --- over HTTP -------------------------------------------------------------------------------

    def _health(self, _: PushRequest) -> PushAnswer:
        """200 while it works, 503 while it does not; the body says what is not well.

        What works on although the files say something else now is `degraded`, and still 200.
        """
        selection = self._selection
        assert selection is not None
        about: JsonObject = {
            "status": "ok" if self._working and not self._refused and not selection.invalid else "degraded",
            "playbooks": sorted(selection.tasks),
            "out": dict(selection.out),
            "invalid": sorted(selection.invalid),
            "configuration": self._refused,
            "reloads": self._reloads,
            "notices": list(self._masked(list(self.figures.notices.values()))),
            "under_way": list(self._masked(list(self.figures.under_way.values()))),
        }
        return PushAnswer(status=200 if self._working else 503, body=json.dumps(about).encode())

    def _metrics(self, _: PushRequest) -> PushAnswer:
        """The figures in the text format of Prometheus."""
        session = self._latest
        text = session.metrics() if session is not None else metrics.text(self.figures, (), Budgets())
        text += metrics.service(
            reloads=self._reloads,
            working=self._working,
            refused=self._refused is not None,
            invalid=len(self._selection.invalid) if self._selection is not None else 0,
        )
        return PushAnswer(status=200, body=text.encode(), content_type=metrics.CONTENT_TYPE)

    def _approve(self, request: PushRequest) -> PushAnswer:
        """An answer by a link's token: a form with `token`, `decision` (approve, deny) and `comment`."""
        fields = {key: values[0] for key, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        decision = fields.get("decision")
        if decision not in ("approve", "deny") or "token" not in fields:
            return _said(400, "give `token`, and `decision` as approve or deny")
        try:
            form = json.loads(fields["form"]) if "form" in fields else None
        except ValueError:
            return _said(400, "`form` is not JSON")
        assert self._selection is not None
        with closing(open_database(self._selection.workspace.store_url)) as database:
            try:
                one = Approvals(ApprovalStore(database)).by_link(
                    request.method,
                    fields["token"],
                    "approve" if decision == "approve" else "deny",
                    source="link",
                    comment=fields.get("comment", ""),
                    form=form,
                )
            except RefusedAnswer as refused:
                return _said(409, str(refused))
        return _said(200, one.status)

    def _masked(self, value: object) -> list[str]:
        found: list[str] = self.opener.secrets.mask_json(value) if self.opener is not None else []
        return found


def _status(selection: Selection) -> str:
    """One line for the service manager."""
    count = len(selection.tasks)
    text = f"STATUS={count} playbook{'' if count == 1 else 's'} at work"
    return f"{text}; the log says more of {', '.join(sorted(selection.out))}" if selection.out else text


def _said(status: int, text: str) -> PushAnswer:
    key = "status" if status == 200 else "error"
    return PushAnswer(status=status, body=json.dumps({key: text}).encode())
