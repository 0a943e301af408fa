"""What the answers of Microsoft's services mean: their error bodies read into verdicts.

Facts and codes: the references of the Office 365 Management Activity API and of Microsoft Graph, and
what running collectors met besides them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from counterplay import RetryableError, Verdict
from counterplay.verdicts import Meaning, by_status, retry_after

if TYPE_CHECKING:
    from requests import Response

_AF = re.compile(r"\bAF\d{3,5}\b")

# What a code means, and what to do about it; an empty advice leaves the service's own words alone.
_ACTIVITY: dict[str, tuple[Meaning, str]] = {
    "AF10001": ("blocked", "grant the application permission ActivityFeed.Read with admin consent"),
    "AF20001": ("permanent", ""),
    "AF20002": ("permanent", "is `publisher_id` a GUID?"),
    "AF20003": ("permanent", ""),
    "AF20010": ("blocked", "`tenant_id` is not the tenant that the app signed in to"),
    "AF20011": ("blocked", "the tenant is unknown or deleted: check `tenant_id` and `cloud`"),
    "AF20012": ("blocked", "the tenant is not set up for this API"),
    "AF20013": ("blocked", "`tenant_id` has to be a GUID"),
    "AF20020": ("permanent", ""),
    "AF20021": ("permanent", ""),
    "AF20022": ("retry", "the subscription is started at the next reconciliation, at most 15 minutes away"),
    "AF20023": ("blocked", "an administrator disabled the subscription"),
    "AF20024": ("ok", ""),  # a start of what is started already
    "AF20030": ("permanent", "the window is out of reach: compare this machine's clock with the service's"),
    "AF20031": ("permanent", "the listing has to begin again"),
    "AF20050": ("retry", ""),
    "AF20051": ("gone", ""),
    "AF20052": ("permanent", ""),
    "AF20053": ("permanent", ""),
    "AF20054": ("permanent", ""),
    "AF20055": ("permanent", "the window is out of reach: compare this machine's clock with the service's"),
    "AF429": ("wait", ""),
}
_AUDITING_OFF = "turn on unified auditing (Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true)"

_GRAPH_STATUS: dict[int, Meaning] = {402: "blocked", 409: "retry", 412: "retry", 423: "retry", 424: "retry"}
_GRAPH_ADVICE = {
    "MailboxNotEnabledForRESTAPI": "the user has no mailbox in Exchange Online",
}


def activity(response: Response) -> Verdict:
    """What an answer of the Management Activity API means: by code, then by known words, then by status.

    A code may stand anywhere in the body (uncaught exceptions are cut at their first colon into `code`
    and `message`), authentication failures have no envelope, and front ends answer with pages.
    """
    if response.status_code < 300:
        return Verdict("ok")
    body, error = _body(response)
    named = str(error.get("code", ""))
    found = _AF.fullmatch(named) or _AF.search(body)
    text = str(error.get("message") or error.get("Message") or "") or _not_json(response, error)
    after = retry_after(response)
    if found is None and "too many request" in body.lower():
        return Verdict("wait", text=text, retry_after=after)
    if found is None and "DataServiceException" in body:
        return Verdict("blocked", text=_advised("the tenant records no audit events", _AUDITING_OFF))
    if found is None:
        general = by_status(response)
        return Verdict(general.meaning, text=text, retry_after=after)
    code = found.group()
    fallback: Meaning = "retry" if code.startswith("AF5") else by_status(response).meaning
    meaning, advice = _ACTIVITY.get(code, (fallback, ""))
    return Verdict(meaning, code=code, text=_advised(text, advice), retry_after=after)


def graph(response: Response) -> Verdict:
    """What an answer of Microsoft Graph means, by its status; the code is the innermost one."""
    if response.status_code < 300:
        return Verdict("ok")
    _, error = _body(response)
    code = str(error.get("code") or "")
    request_id = response.headers.get("request-id", "")
    inner: Any = error
    for _ in range(8):
        inner = inner.get("innerError") or inner.get("innererror")
        if not isinstance(inner, dict):
            break
        code = str(inner.get("code") or code)
        request_id = str(inner.get("request-id") or request_id)
    text = str(error.get("message") or "") or _not_json(response, error)
    return Verdict(
        _GRAPH_STATUS.get(response.status_code) or by_status(response).meaning,
        code=code,
        text=_advised(text, _GRAPH_ADVICE.get(code, "")),
        request_id=request_id,
        retry_after=retry_after(response),
    )


def content(response: Response, place: str) -> Any:
    """The JSON of a successful answer. RetryableError: it holds none (a page of a proxy, a cut body)."""
    try:
        return json.loads(response.content.decode("utf-8-sig", "surrogateescape"))
    except ValueError as error:
        kind = response.headers.get("Content-Type", "no content type")
        raise RetryableError(
            f"{place} answered {response.status_code} with something that is not JSON ({kind}): {error}",
            status=response.status_code,
            request_id=response.headers.get("request-id"),
        ) from error


def content_object(response: Response, place: str) -> dict[str, Any]:
    """The JSON object of a successful answer. RetryableError: it is anything else."""
    found = content(response, place)
    if not isinstance(found, dict):
        raise RetryableError(
            f"{place} answered {response.status_code} without a JSON object", status=response.status_code
        )
    return found


def _body(response: Response) -> tuple[str, dict[str, Any]]:
    """The text of an error body, and its error object (`{"error": {…}}`, or the body itself)."""
    text = response.content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except ValueError:
        return text, {}
    error = found.get("error", found) if isinstance(found, dict) else {}
    return text, error if isinstance(error, dict) else {"code": error}


def _not_json(response: Response, error: dict[str, Any]) -> str:
    if error or not response.content:
        return ""
    return f"a page instead of JSON ({response.headers.get('Content-Type', 'no content type')})"


def _advised(text: str, advice: str) -> str:
    return "; ".join(part for part in (text.rstrip("."), advice) if part) if advice else text
