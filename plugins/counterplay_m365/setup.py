"""`playbook connections setup m365.tenant`: from nothing to a connection that works.

Every step says what it does, what the administrator has to do, and how to see that it is done.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from counterplay import BlockedError, ConfigError, Context, CounterplayError, Need

if TYPE_CHECKING:
    from counterplay_m365.setup_proof import Proof
    from counterplay_m365.tenant import Tenant

_DEFAULT_PLAYBOOKS = ("office365-to-intake", "alerts-to-intake")
_PLANS = "LicenseAssignment.Read.All"
_POLL = 5.0
_pause = time.sleep
_PROOF = "add --certificate-file FILE, or --client-secret, --workload-identity-file or --managed-identity"
PORTAL = "https://entra.microsoft.com"


@click.command("m365.tenant")
@click.option("--tenant-id", metavar="ID", help="The tenant's GUID; without it, it is asked for.")
@click.option("--name", default="contoso", show_default=True, help="What the connection shall be called.")
@click.option(
    "--playbook",
    "playbooks",
    multiple=True,
    metavar="NAME",
    help="A playbook that shall work; may be repeated. Default: office365-to-intake, alerts-to-intake.",
)
@click.option("--client-id", help="An app registration that exists already.")
@click.option("--certificate-file", help="Its certificate with private key (PEM or PFX).")
@click.option("--client-secret", metavar="REFERENCE", help="Its secret by reference, such as ${env:NAME}.")
@click.option(
    "--workload-identity-file",
    metavar="FILE",
    help="File with the token that the platform gives (Kubernetes, a CI service): no credential to keep.",
)
@click.option(
    "--managed-identity",
    metavar="ID",
    help="The identity that Azure gave to this machine: its client id, or `system` for the system's own.",
)
@click.option("--principal-id", metavar="ID", help="With --create --managed-identity system: its object id.")
@click.option(
    "--create",
    is_flag=True,
    help="Make the registration through Graph, as an administrator; with --client-id or --managed-identity, "
    "give the one that is there what it lacks.",
)
@click.option(
    "--admin-token-env",
    metavar="VARIABLE",
    help="With --create: the variable with the administrator's Graph token, instead of a device code.",
)
@click.option("--cloud", default="global", show_default=True, help="The national cloud.")
@click.option("--authority", help="Base address of the sign-in service, for a private or simulated one.")
@click.option("--graph-url", help="Base address of Graph.")
@click.option("--activity-url", help="Base address of the Management Activity API.")
@click.option("--ca-file", help="Certificate authorities to trust instead of the system's.")
@click.option("--redirect-uri", default="https://localhost", show_default=True, help="Where consent returns.")
@click.option(
    "--webhook",
    metavar="URL",
    help="The public HTTPS address that leads to --listen: Microsoft then tells of new content there.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8787",
    show_default=True,
    metavar="HOST:PORT",
    help="With --webhook: where `playbook up` will listen, and this command does while it is tried.",
)
@click.option(
    "--wait", default=600, show_default=True, metavar="SECONDS", help="How long to wait for consent."
)
def setup(
    tenant_id: str | None,
    name: str,
    playbooks: tuple[str, ...],
    client_id: str | None,
    certificate_file: str | None,
    client_secret: str | None,
    workload_identity_file: str | None,
    managed_identity: str | None,
    principal_id: str | None,
    create: bool,
    admin_token_env: str | None,
    redirect_uri: str,
    webhook: str | None,
    listen: str,
    wait: int,
    **addresses: str | None,
) -> None:
    """Set up a connection to a Microsoft 365 tenant, step by step.

    Prints the registration that the chosen playbooks need and no more, waits for the administrator's
    consent, starts the audit subscriptions, and tries each feed. Nothing is written but the new
    certificate of --create and the id of --webhook, each in a file for its owner only; the lines for
    counterplay.yaml are printed at the end.

    Exits 0 when everything works, 1 when a feed does not, 3 when consent is still missing.
    """
    from counterplay.cli.asking import ask
    from counterplay.cli.loading import open_workspace
    from counterplay_m365 import setup_proof, webhook_setup
    from counterplay_m365.setup_registration import Administration

    workspace = open_workspace()
    needs = needs_of(workspace, playbooks or _DEFAULT_PLAYBOOKS)
    permissions = least_permissions(needs)
    if tenant_id is None:
        tenant_id = ask("Directory (tenant) ID", otherwise="add --tenant-id ID")
    settings: dict[str, Any] = {"tenant_id": tenant_id}
    settings |= {key: value for key, value in addresses.items() if value and value != "global"}
    if settings.get("ca_file"):
        settings["ca_file"] = str(Path(settings["ca_file"]).absolute())
    if addresses.get("authority"):
        settings["instance_discovery"] = False
    given = {
        "certificate_file": certificate_file,
        "client_secret": client_secret,
        "workload_identity_file": workload_identity_file,
        "managed_identity": managed_identity,
    }
    new = create and not client_id and not managed_identity
    if new and client_secret:
        raise ConfigError(
            "--create makes no client secret",
            hint="leave --client-secret out: it makes a certificate, which is safer",
        )
    proof = setup_proof.chosen(given, new=new, unnamed=create and not principal_id)
    guess = proof or setup_proof.Proof("certificate_file", "to come")
    _check(workspace, {**settings, **guess.settings("to come")})
    hook = webhook_setup.address_of(webhook, name) if webhook else None
    _say_permissions(permissions)
    _say_roles(needs)
    if create:
        if new and proof is None:
            file = (workspace.state_dir / "certificates" / f"{name}.pem").absolute()
            proof = setup_proof.Proof("certificate_file", str(file))
        administrator = Administration(settings, name, admin_token_env, redirect_uri, principal_id)
        client_id = administrator.created(client_id, proof, permissions)
    elif proof is not None and proof.managed:
        click.echo(
            "\nA managed identity takes no consent, and the portal has no page that grants it anything:\n"
            "an administrator runs this with --create, which gives it what it lacks through Graph."
        )
    elif not client_id:
        _say_registration(permissions, redirect_uri, guess)
        client_id = ask("Application (client) ID", otherwise="register the app, then add --client-id ID")
    else:
        click.echo(
            "\nThe registration has to list them before anybody can consent; add what it lacks at\n"
            f"  {PORTAL} > Identity > Applications > App registrations > {client_id} > API permissions"
        )
    if proof is None:
        file_name = ask("File with the app's certificate and private key", otherwise=_PROOF)
        proof = setup_proof.chosen({"certificate_file": file_name})
        assert proof is not None
    settings |= proof.settings(client_id)
    if hook:
        file = workspace.state_dir / "certificates" / f"{name}.webhook-id"
        settings["webhook_auth_id"] = webhook_setup.new_auth_id(file)
    connection = _connection(workspace, name, settings)
    if not proof.managed:
        click.echo("\nAn administrator gives consent here, once for each change of the permissions:")
        click.echo(f"  {consent_link(connection, str(client_id), redirect_uri)}")
    _wait_for_consent(connection, permissions, wait, proof.flags(client_id), just_made=create)
    failed = _try_out(connection, needs, hook, listen)
    _say_configuration(name, settings)
    if hook:
        click.echo("\nand this as playbooks/audit-webhook.yaml, then run `playbook up`:\n")
        click.echo(webhook_setup.PLAYBOOK.format(name=name))
    if failed:
        raise SystemExit(1)


def needs_of(workspace: Any, playbooks: Sequence[str]) -> list[Need]:
    """What the playbooks need of a tenant, module by module. ConfigError: one does not exist."""
    from counterplay.cli.doctor import needs_by_kind

    return needs_by_kind(workspace, playbooks, "m365.tenant")


def least_permissions(needs: Sequence[Need]) -> dict[str, list[str]]:
    """The fewest permissions that do for all needs, by resource; reading the plans is one of them.

    Of alternatives the first is the least; one that another need asks for anyway is not added twice.
    """
    found: dict[str, list[str]] = {"Microsoft Graph": [_PLANS]}
    wanted = [permission for need in needs for permission in need.permissions]
    for permission in sorted(wanted, key=lambda one: len(one["any"])):
        names = found.setdefault(permission["resource"], [])
        if not set(names) & set(permission["any"]):
            names.append(permission["any"][0])
    return {resource: sorted(names) for resource, names in found.items()}


def consent_link(connection: Tenant, client_id: str, redirect_uri: str) -> str:
    """Where an administrator agrees to everything that the registration lists."""
    query = {"client_id": client_id, "redirect_uri": redirect_uri, "state": secrets.token_urlsafe(8)}
    return f"{connection.authority}/{connection.tenant}/adminconsent?{urlencode(query, quote_via=quote)}"


def _say_permissions(permissions: dict[str, list[str]]) -> None:
    click.echo("The chosen playbooks need these application permissions, and no others:")
    for resource, names in permissions.items():
        for name in names:
            click.echo(f"  {resource}: {name}")


def _say_roles(needs: Sequence[Need]) -> None:
    """Which roles of Entra ID the app's service principal needs beside its permissions."""
    told = {
        f"{' or '.join(role['any'])}: {'' if role['always'] else 'only '}for {role['for']} ({need.uses})"
        for need in needs
        for role in need.roles
    }
    if not told:
        click.echo("They take no role of Entra ID.")
        return
    click.echo("Some calls take a role of Entra ID that the app itself holds, any of these:")
    for line in sorted(told):
        click.echo(f"  {line}")
    click.echo(
        f"  {PORTAL} > Identity > Roles & admins > the role > Add assignments: the app, when you want that"
    )


def _say_registration(permissions: dict[str, list[str]], redirect_uri: str, proof: Proof) -> None:
    click.echo(
        f"""
Register the app by hand (or run this with --create):
  1. {PORTAL} > Identity > Applications > App registrations > New registration
     Name `counterplay`, accounts in this directory only, redirect URI (Web) {redirect_uri}
  2. {proof.how()}
  3. API permissions > Add a permission > APIs my organization uses > Application permissions:"""
    )
    for resource, names in permissions.items():
        click.echo(f"     {resource}: {', '.join(names)}")
    click.echo("  4. Copy the Application (client) ID from the Overview page\n")


def _check(workspace: Any, settings: dict[str, Any]) -> None:
    """ConfigError: counterplay.yaml would not take these settings."""
    from counterplay.language.arguments import problems

    for problem in problems(settings, workspace.host.module("m365.tenant").schema):
        where = ".".join(str(part) for part in problem.path)
        raise ConfigError(f"{where}: {problem.message}" if where else problem.message, hint=problem.hint)


def _connection(workspace: Any, name: str, settings: dict[str, Any]) -> Tenant:
    from counterplay.language import with_defaults
    from counterplay.secrets import Secrets
    from counterplay_m365.tenant import Tenant

    _check(workspace, settings)
    schema = workspace.host.module("m365.tenant").schema
    return Tenant(name, with_defaults(schema, settings), Secrets(workspace.base, lambda scheme, name: None))


def _wait_for_consent(
    connection: Tenant, permissions: dict[str, list[str]], seconds: int, again: str, *, just_made: bool
) -> None:
    """Until the tokens carry every permission. SystemExit 3: they do not in time; `again` goes on then.

    BlockedError: something that no consent cures, such as a wrong secret.
    """
    from counterplay_m365.entra import CURED_BY_CONSENT, NOT_YET_KNOWN
    from counterplay_m365.tenant import SERVICES

    passing = CURED_BY_CONSENT | (NOT_YET_KNOWN if just_made else frozenset())

    until = time.monotonic() + seconds
    said = ""
    while True:
        missing: list[str] = []
        for resource, names in permissions.items():
            try:
                granted = connection.granted(SERVICES[resource])
            except BlockedError as error:
                if error.code not in passing:
                    raise
                missing += [str(error)] if str(error) not in missing else []
                continue
            missing += [f"{resource}: {one}" for one in names if granted is not None and one not in granted]
        if not missing:
            click.echo("\nConsent is given.")
            return
        if missing != said.split("\n"):
            click.echo(f"\nWaiting for consent; still missing: {'; '.join(missing)}")
            said = "\n".join(missing)
        if time.monotonic() + _POLL > until:
            click.echo(f"Consent is still missing: run this again with {again} when it is given.", err=True)
            raise SystemExit(3)
        _pause(_POLL)
        connection.forget_tokens()


def _try_out(connection: Tenant, needs: Sequence[Need], hook: str | None, listen: str) -> bool:
    """Start the subscriptions and try each feed. Whether anything was refused."""
    from counterplay.wire import Wire

    failed = False
    with Wire(connection, attempts=3) as http:
        context = Context(http=http, connection=connection)
        for need in needs:
            if need.uses == "m365.audit_log":
                failed = not _start_audit(context, need, hook, listen) or failed
        click.echo("\nEach feed, tried now:")
        told: set[str] = set()
        for one in connection.examine(context, needs):
            failed = failed or one.ok is False
            word = {True: "ok", False: "REFUSED", None: "not known"}[one.ok]
            line = f"  {one.about}: {word}{f': {one.detail}' if one.detail else ''}"
            if line not in told:  # several uses of one module
                click.echo(line)
            told.add(line)
    return failed


def _start_audit(context: Context, need: Need, hook: str | None, listen: str) -> bool:
    """Start the audit subscriptions, with a webhook if there shall be one. Whether all of it worked."""
    from counterplay_m365 import webhook_setup
    from counterplay_m365.triggers.audit_log import CONTENT_TYPES, AuditLog

    answers: list[tuple[str, str | None]] = []
    try:
        if hook is not None and context.connection is not None:
            auth_id = context.connection.secret("webhook_auth_id")
            chosen = need.arguments.get("content_types") or CONTENT_TYPES
            answers = webhook_setup.give(context, chosen, hook, auth_id, listen)
        AuditLog(need.arguments).prepare(context)
    except CounterplayError as error:
        click.echo(f"The audit subscriptions could not be started: {error}")
        return False
    click.echo("The audit subscriptions are started; first data may take up to 12 hours.")
    for content_type, why in answers:
        click.echo(f"  webhook for {content_type}: {'given' if why is None else why}")
    return all(why is None for _, why in answers)


def _say_configuration(name: str, settings: dict[str, Any]) -> None:
    import json

    click.echo("\nAdd this to counterplay.yaml:\n\nconnections:")
    click.echo(f"  {name}:\n    uses: m365.tenant")
    for key, value in settings.items():
        click.echo(f"    {key}: {json.dumps(value)}")
