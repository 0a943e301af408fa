"""The webhook of the audit feed, given to subscriptions while a listener answers Microsoft's trial."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from counterplay import ConfigError, Context, CounterplayError, PushAnswer, PushRequest
from counterplay_m365.activity import ActivityFeed
from counterplay_m365.triggers.audit_webhook import AuditWebhook

PLAYBOOK = """\
  name: audit-webhook
  trigger: {{uses: m365.audit_webhook, connection: {name}}}
  sinks: [{{uses: std.jsonl, with: {{path: .counterplay/audit-webhook.jsonl}}}}]"""


def address_of(public: str, name: str) -> str:
    """Where Microsoft posts to, below the address that leads to this machine's listener.

    ConfigError: Microsoft would not take it.
    """
    if not public.lower().startswith("https://"):
        raise ConfigError(
            f"the webhook {public} is not an HTTPS address", hint="put a TLS proxy before the listener"
        )
    return f"{public.rstrip('/')}{_path(name)}"


def new_auth_id(file: Path) -> str:
    """Make the id that Microsoft shall send, in a file that only its owner reads; a reference to it.

    One that is there already stays: subscriptions may have it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return f"${{file:{file}}}"
    with os.fdopen(descriptor, "w") as target:
        target.write(secrets.token_urlsafe(32))
    return f"${{file:{file}}}"


def give(
    context: Context, content_types: Iterable[str], address: str, auth_id: str, listen: str
) -> list[tuple[str, str | None]]:
    """Start the subscriptions with the webhook; for each content type why it was not, or None.

    ConfigError: nothing can listen there. A webhook of another product is left alone.
    """
    from counterplay.runtime.listener import Listener

    def tried(request: PushRequest) -> PushAnswer:
        return AuditWebhook({}).receive(context, request)

    feed = ActivityFeed(context)
    present = {one.content_type.lower(): one for one in feed.subscriptions()}
    found: list[tuple[str, str | None]] = []
    assert context.connection is not None
    with Listener(listen, pages={("POST", _path(context.connection.label)): tried}):
        for content_type in content_types:
            one = present.get(content_type.lower())
            if one is not None and one.webhook not in (None, address):
                found.append((content_type, f"a webhook of another product hangs on it ({one.webhook})"))
                continue
            try:
                feed.start(content_type, webhook=(address, auth_id))
            except CounterplayError as error:
                found.append((content_type, str(error)))
            else:
                found.append((content_type, None))
    return found


def _path(name: str) -> str:
    return f"/push/m365.audit_webhook/{name}"
