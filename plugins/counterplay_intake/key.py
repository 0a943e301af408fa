"""The connection `intake.key`: an HTTP intake and the key that opens it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from counterplay import CheckResult, Connection, Context, CounterplayError, RejectedError, Verdict
from counterplay.verdicts import by_status, retry_after

if TYPE_CHECKING:
    from requests import Response


class IntakeKey(Connection):
    """An HTTP intake that takes batches of events with an intake key.

    The key is routing and secret at once: it travels in the body of a request, never in an address.
    """

    name = "key"

    @property
    def url(self) -> str:
        """The base address, without a slash at its end."""
        return str(self.settings["url"]).rstrip("/")

    def origins(self) -> Collection[str]:
        parts = urlsplit(self.url)
        return (f"{parts.scheme}://{parts.netloc}".lower(),)

    def service(self, origin: str) -> str:
        return f"the intake {urlsplit(origin).netloc}"

    def ca_file(self) -> str | None:
        path = self.settings.get("ca_file")
        return str(path) if path else None

    def classify(self, response: Response) -> Verdict | None:
        status = response.status_code
        if status < 300:
            return Verdict("ok")
        if 300 <= status < 400 or status in (404, 405, 410):
            return Verdict("blocked", text="no intake is at this address; check `url`")
        if status in (401, 403):
            return Verdict("blocked", text="the intake key is refused; check `intake_key`")
        return Verdict(by_status(response).meaning, retry_after=retry_after(response))

    def check(self, context: Context) -> Iterable[CheckResult]:
        """Send a batch without events, which stores nothing."""
        from counterplay_intake.client import send

        try:
            send(context, [])
        except RejectedError as error:
            yield CheckResult(
                "empty batch",
                True,
                f"reachable, but it refuses an empty batch ({error.status}), so the key is not proven",
            )
        except CounterplayError as error:
            yield CheckResult("empty batch", False, str(error))
        else:
            yield CheckResult("empty batch", True, "reachable, and the key is accepted; nothing was stored")
