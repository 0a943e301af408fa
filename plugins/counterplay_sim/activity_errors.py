"""What the audit feed's answers have in common: its error codes, its headers, its JSON."""

from __future__ import annotations

import uuid

import orjson

from counterplay_sim.http_server import Answer

Query = dict[str, str]

HEADERS = (
    ("Cache-Control", "no-cache"),
    ("Pragma", "no-cache"),
    ("Expires", "-1"),
    ("Server", "Microsoft-IIS/10.0"),
    ("X-AspNet-Version", "4.0.30319"),
    ("X-Powered-By", "ASP.NET"),
)


class AfError(Exception):
    """A refusal with a code of the service."""

    def __init__(
        self, code: str, message: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.headers = headers

    def answer(self) -> Answer:
        """As it goes over the wire."""
        body = orjson.dumps({"error": {"code": self.code, "message": self.message}})
        return Answer(self.status, body, headers=HEADERS + self.headers)


def too_many(operation: str, publisher: str, status: int = 403, retry_after: int | None = None) -> AfError:
    """AF429, with the service's own name of the operation."""
    headers = (("Retry-After", str(retry_after)),) if retry_after is not None else ()
    return AfError(
        "AF429", f"Too many requests. Method={operation}, PublisherId={publisher}", status, headers
    )


def json_answer(value: object) -> Answer:
    """200 with a JSON body."""
    return Answer(200, orjson.dumps(value), headers=HEADERS)


def is_guid(text: str) -> bool:
    """Whether a text is a GUID as the service takes it."""
    try:
        return len(text) == 36 and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
