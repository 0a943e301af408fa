"""The figures of a session as Prometheus text: on demand over HTTP, or in a file that is replaced."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from counterplay.clock import now
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.budgets import Budgets
    from counterplay.runtime.feeds import Feed
    from counterplay.runtime.figures import Figures
    from counterplay.store.figures import Unfinished

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FILE_EVERY = 5.0

log = logging.getLogger("counterplay.metrics")

#: Figure: its metric and what it counts. Each feed has a series of its own, with its label.
_FEED_COUNTERS = {
    "listings": ("listings", "Windows that were listed."),
    "listing_failures": ("listing_failures", "Rounds of listing that failed and are tried again."),
    "listed": ("units_listed", "Units that sources listed for the first time."),
    "late": ("units_listed_late", "Units that became listable after their window was accounted for."),
    "units": ("units_fetched", "Units that were fetched and read."),
    "bytes": ("bytes_fetched", "Bytes of units that were fetched and read."),
    "collected": ("events_collected", "Events in fetched units, duplicates included."),
    "duplicates": ("events_duplicate", "Events that were dropped because another unit owns them."),
    "altered": ("events_altered", "Duplicates whose body is not the one that is known."),
    "filtered": ("events_filtered", "Events that a filter did not let through."),
    "broken": ("elements_broken", "Elements of units that could not be read."),
    "quarantined": ("units_quarantined", "Units that were set aside."),
    "lost": ("units_lost", "Units that can never be had."),
    "gaps": ("gaps", "Recorded gaps: ranges of time that cannot be accounted for."),
    "gap_seconds": ("gap_seconds", "Seconds of time in recorded gaps."),
}
#: The same for all feeds and runs together.
_COUNTERS = {
    "delivered": ("records_delivered", "Records that sinks took."),
    "dead_letters": ("dead_letters", "Records that could not be read or delivered."),
    "runs": ("runs_started", "Runs that were started."),
    "runs_called": ("runs_called", "Runs that other runs called."),
    "runs_succeeded": ("runs_succeeded", "Runs that ended well."),
    "runs_failed": ("runs_failed", "Runs that failed."),
    "runs_cancelled": ("runs_cancelled", "Runs that were cancelled."),
    "runs_suppressed": ("runs_suppressed", "Events that `once_per` let start no run."),
    "runs_known": ("runs_known", "Events whose run had been started before."),
    "steps_failed": ("steps_failed", "Steps that failed."),
    "condition_errors": ("condition_errors", "Conditions that could not be evaluated, and counted as false."),
    "outcomes": ("outcomes_delivered", "Records of runs that sinks took."),
    "effects_not_held": ("effects_not_held", "Effects that did not hold when they were looked at later."),
}
#: What the histograms of a feed measure, in seconds.
_LAGS = {
    "event_available": "From the time in a unit's first event until the source made the unit available.",
    "unit_listed": "From when the source made a unit available until it was listed here.",
    "unit_fetched": "From the listing of a unit until its bytes were here.",
    "unit_acknowledged": "From when a unit's bytes were here until a playbook was done with it.",
    "event_acknowledged": "From the time in a unit's first event until a playbook was done with the unit.",
}
_OUTCOMES = ("done", "failed", "unknown", "refused")


def text(
    figures: Figures,
    feeds: Sequence[Feed],
    budgets: Budgets,
    open_now: Unfinished | None = None,
    tokens: Sequence[tuple[str, str, float]] = (),
) -> str:
    """All metrics, in the exposition format of Prometheus. Without `open_now`, it leaves the store out.

    `tokens`: connection, service and age in seconds of each that is in use.
    """
    lines = [
        *_lines(figures, feeds, budgets),
        *_tokens(tokens),
        *(_unfinished(open_now) if open_now is not None else ()),
    ]
    return "\n".join(lines) + "\n"


def service(*, reloads: int, working: bool, refused: bool, invalid: int) -> str:
    """What a service says of itself besides."""
    lines = [
        *_head("reloads_total", "counter", "Changes of the configuration that took effect."),
        f"counterplay_reloads_total {reloads}",
        *_head("up", "gauge", "1 while the playbooks are at work."),
        f"counterplay_up {int(working)}",
        *_head(
            "configuration_invalid", "gauge", "1 while counterplay.yaml is not valid; it runs on as it was."
        ),
        f"counterplay_configuration_invalid {int(refused)}",
        *_head(
            "playbooks_invalid", "gauge", "Playbooks that are not valid; their last good versions run on."
        ),
        f"counterplay_playbooks_invalid {invalid}",
    ]
    return "\n".join(lines) + "\n"


def _unfinished(found: Unfinished) -> Iterator[str]:
    yield from _head("runs", "gauge", "Runs in the store that have not ended, by status.")
    for status, count in found.runs.items():
        yield f"counterplay_runs{_labels(status=status)} {count}"
    yield from _head("approvals_waiting", "gauge", "Questions that wait for an answer.")
    yield f"counterplay_approvals_waiting {found.approvals}"


def _lines(figures: Figures, feeds: Sequence[Feed], budgets: Budgets) -> Iterator[str]:
    for figure, (name, help_text) in _FEED_COUNTERS.items():
        yield from _head(f"{name}_total", "counter", help_text)
        for label, own in figures.feeds.items():
            yield f"counterplay_{name}_total{_labels(feed=label)} {own[figure]}"
    for figure, (name, help_text) in _COUNTERS.items():
        yield from _head(f"{name}_total", "counter", help_text)
        yield f"counterplay_{name}_total {figures[figure]}"
    yield from _histograms(figures)
    yield from _head("effects_total", "counter", "Effects that came to their end, by outcome.")
    for outcome in _OUTCOMES:
        yield f"counterplay_effects_total{_labels(outcome=outcome)} {figures[f'effects_{outcome}']}"
    yield from _head("feed_mark_age_seconds", "gauge", "Age of the low-water mark of a feed.")
    moment = now()
    for feed in feeds:
        for playbook, mark in feed.marks.items():
            labels = _labels(feed=feed.label, playbook=playbook)
            yield f"counterplay_feed_mark_age_seconds{labels} {(moment - mark).total_seconds():.0f}"
    yield from _head("feed_listed_age_seconds", "gauge", "Seconds since a feed was last listed in full.")
    for feed in feeds:
        if feed.listed_at is not None:
            age = (moment - feed.listed_at).total_seconds()
            yield f"counterplay_feed_listed_age_seconds{_labels(feed=feed.label)} {age:.0f}"
    yield from _head("feed_newest_age_seconds", "gauge", "Age of the newest unit that a feed has listed.")
    for feed in feeds:
        if feed.newest is not None:
            age = (moment - feed.newest).total_seconds()
            yield f"counterplay_feed_newest_age_seconds{_labels(feed=feed.label)} {age:.0f}"
    yield from _head(
        "feed_lag_seconds",
        "gauge",
        "Seconds from listing to acknowledgement, mean of the last units.",
    )
    held = [feed for feed in feeds if feed.held]
    for feed in held:
        yield f"counterplay_feed_lag_seconds{_labels(feed=feed.label)} {feed.pipeline.lag:.3f}"
    yield from _head("feed_backlog_units", "gauge", "Units that are queued or on their way.")
    for feed in held:
        yield f"counterplay_feed_backlog_units{_labels(feed=feed.label)} {feed.pipeline.load}"
    yield from _head("playbook_held_back", "gauge", "1 while a playbook's sink refuses records.")
    for feed in feeds:
        for one in feed.subscribers:
            labels = _labels(feed=feed.label, playbook=one.name)
            yield f"counterplay_playbook_held_back{labels} {int(one.pause.active)}"
    services = budgets.all()
    yield from _head("requests_last_minute", "gauge", "Requests to a service in the last minute.")
    for service, budget in services.items():
        yield f"counterplay_requests_last_minute{_labels(service=service)} {budget.used}"
    yield from _head("requests_limit", "gauge", "Requests a minute that a service is asked at most.")
    for service, budget in services.items():
        if budget.limit is not None:
            yield f"counterplay_requests_limit{_labels(service=service)} {budget.limit:.0f}"
    yield from _head("throttles_total", "counter", "Times that a service said it was asked too often.")
    for service, budget in services.items():
        yield f"counterplay_throttles_total{_labels(service=service)} {budget.refusals}"


def _tokens(tokens: Sequence[tuple[str, str, float]]) -> Iterator[str]:
    yield from _head("token_age_seconds", "gauge", "Seconds since the token in use was given.")
    for connection, service, age in tokens:
        yield f"counterplay_token_age_seconds{_labels(connection=connection, service=service)} {age:.0f}"


def _histograms(figures: Figures) -> Iterator[str]:
    feeds = [(feed, own.lags) for feed, own in figures.feeds.items()]
    for name, help_text in _LAGS.items():
        metric = f"{name}_seconds"
        yield from _head(metric, "histogram", help_text)
        for feed, lags in feeds:
            for playbook, histogram in [(of, one) for (what, of), one in lags.items() if what == name]:
                about = {"feed": feed, **({"playbook": playbook} if playbook else {})}
                counted = histogram.cumulative()
                for bound, count in counted:
                    yield f"counterplay_{metric}_bucket{_labels(**about, le=_bound(bound))} {count}"
                yield f"counterplay_{metric}_sum{_labels(**about)} {histogram.sum:.3f}"
                yield f"counterplay_{metric}_count{_labels(**about)} {counted[-1][1]}"


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else f"{seconds:g}"


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP counterplay_{name} {help_text}"
    yield f"# TYPE counterplay_{name} {kind}"


def _labels(**labels: str) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"


class Exporter:
    """Serves the text on `HOST:PORT/metrics`, or keeps it in a file for a node exporter."""

    def __init__(self, where: str, made: Callable[[], str]) -> None:
        self._made = made
        self._stop = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._failing = False
        self._file: Path | None = None
        host, _, port = where.rpartition(":")
        if host and port.isdigit():
            try:
                self._server = _Server((host, int(port)), _handler(made))
            except OSError as error:
                raise ConfigError(
                    f"cannot serve metrics on {where}: {error.strerror or error}",
                    hint="choose another --metrics",
                ) from error
            self.url = f"http://{host}:{self._server.server_address[1]}/metrics"
        else:
            self._file = Path(where)
            self.url = str(self._file)
            self._write()
        work = self._server.serve_forever if self._server is not None else self._follow
        self._thread = threading.Thread(target=work, name="metrics", daemon=True)

    def __enter__(self) -> Exporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._thread.join()
        if self._file is not None:
            self._renew()

    def _follow(self) -> None:
        while not self._stop.wait(_FILE_EVERY):
            self._renew()

    def _renew(self) -> None:
        """Write it again; should that fail, the work goes on and the file is tried once more later."""
        try:
            self._write()
        except ConfigError as error:
            if not self._failing:
                log.warning("%s", error)
            self._failing = True
        else:
            self._failing = False

    def _write(self) -> None:
        assert self._file is not None
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            beside.write_text(self._made(), "utf-8")
            beside.replace(self._file)
        except OSError as error:
            raise ConfigError(
                f"cannot write metrics to {self._file}: {error.strerror}", hint="choose another --metrics"
            ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(made: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            body = made().encode() if found else b"metrics are at /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """A healthy scrape is no news."""

    return Handler
