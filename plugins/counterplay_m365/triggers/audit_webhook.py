"""The trigger `m365.audit_webhook`: the audit feed's push, as a hint to poll sooner."""

from __future__ import annotations

import hmac
import json

from counterplay import Context, Event, JsonObject, PushAnswer, PushRequest, PushTrigger
from counterplay.events import encoded
from counterplay_m365.following import members_of, text
from counterplay_m365.tenant import tenant


class AuditWebhook(PushTrigger):
    """Take the notifications of the Management Activity API, and make `m365.audit_log` look at once.

    A notification is only a hint: it names content, and holds no events. The feeds of `m365.audit_log`
    on the same connection list and fetch as ever, and lose nothing when none arrives. Each notification
    is an event of this trigger itself, for whoever wants to watch them.

    Needs:
        A public HTTPS address that leads to the listener's `/push/m365.audit_webhook/CONNECTION`. The
        guided set-up (`connections setup m365.tenant --webhook URL`) gives it to the subscriptions, with
        an id that is the connection's `webhook_auth_id`.
    Delivery:
        At least once; Microsoft repeats what was not answered with 200.
    Limits:
        Microsoft advises against webhooks: they can be slower than polling.
    Source:
        https://learn.microsoft.com/office/office-365-management-api/office-365-management-activity-api-reference
    """

    name = "audit_webhook"
    connection = "m365.tenant"

    def receive(self, context: Context, request: PushRequest) -> PushAnswer:
        connection = tenant(context)
        if not connection.settings.get("webhook_auth_id"):
            return _refused(403, "the connection has no webhook_auth_id")
        sent = request.headers.get("webhook-authid", "")
        if not hmac.compare_digest(sent.encode(), connection.secret("webhook_auth_id").encode()):
            return _refused(403, "the Webhook-AuthID is not this connection's")
        if request.headers.get("webhook-validationcode"):
            return PushAnswer(status=200)
        try:
            found = json.loads(request.body)
        except ValueError:
            return _refused(400, "the body is no JSON")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            return _refused(400, "the body is no list of notifications")
        ours = [one for one in found if str(one.get("tenantId", "")).lower() == connection.tenant]
        return PushAnswer(
            tuple(encoded(one) for one in ours),
            status=200,
            wakes=("m365.audit_log",) if ours else (),
        )

    def delivery_key(self, event: Event) -> str | None:
        return text(members_of(event).get("contentId"))


def _refused(status: int, why: str) -> PushAnswer:
    answer: JsonObject = {"error": why}
    return PushAnswer(status=status, body=encoded(answer))
