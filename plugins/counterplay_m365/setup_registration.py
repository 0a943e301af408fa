"""What `--create` does: a registration, or a managed identity, gets through Graph what it lacks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from counterplay import BlockedError, ConfigError, CounterplayError, JsonObject

if TYPE_CHECKING:
    from counterplay_m365.registration import Registrar, Wanted
    from counterplay_m365.setup_proof import Proof


@dataclass
class Administration:
    """What an administrator's sign-in does for the set-up, through Graph."""

    settings: dict[str, Any]
    name: str
    token_variable: str | None
    redirect_uri: str
    principal_id: str | None

    def created(
        self, client_id: str | None, proof: Proof | None, permissions: dict[str, list[str]]
    ) -> str | None:
        """Make the registration, or give the one that is there what it lacks; its client id."""
        from counterplay.wire import Wire
        from counterplay_m365.clouds import CLOUDS
        from counterplay_m365.registration import Administrator, Registrar

        new = client_id is None and proof is not None and not proof.managed
        certificate_file = Path(proof.value) if new and proof and proof.form == "certificate_file" else None
        if certificate_file is not None and certificate_file.exists():
            raise ConfigError(
                f"{certificate_file} exists already, so a registration was made with it",
                hint=f"go on with that one: --client-id ID --certificate-file {certificate_file}, and "
                "--create if it is not complete; for a new one choose another --name or --certificate-file",
            )
        cloud = CLOUDS[self.settings.get("cloud") or "global"]
        graph_url = str(self.settings.get("graph_url") or cloud.graph).rstrip("/")
        token = self._token(str(self.settings.get("authority") or cloud.authority).rstrip("/"), graph_url)
        administrator = Administrator(graph_url, lambda: token, self.settings.get("ca_file"))
        with Wire(administrator, mask=lambda text: text.replace(token, "***")) as http:
            registrar = Registrar(http, graph_url)
            wanted = registrar.wanted(permissions)
            if proof is not None and proof.managed:
                registrar.give(self.principal_id or registrar.principal_of(proof.value), wanted)
                click.echo("\nGave the managed identity what it lacked.")
                return client_id
            app = self._new(registrar, wanted, certificate_file) if new else registrar.app(str(client_id))
            self._complete(registrar, app, wanted, proof)
            return str(app["appId"])

    def _token(self, authority: str, graph_url: str) -> str:
        """Of the variable, else of an administrator who enters a code."""
        from counterplay_m365.entra import entra_session
        from counterplay_m365.registration import device_code_token

        if self.token_variable:
            token = os.environ.get(self.token_variable, "")
            if not token:
                raise ConfigError(f"the variable {self.token_variable} is not set")
            return token
        return device_code_token(
            f"{authority}/{self.settings['tenant_id']}",
            graph_url,
            click.echo,
            entra_session(self.name, self.settings.get("ca_file")),
            instance_discovery=self.settings.get("instance_discovery", True),
        )

    def _new(self, registrar: Registrar, wanted: Wanted, file: Path | None) -> JsonObject:
        from counterplay_m365.registration import new_certificate

        certificate = new_certificate(file, f"counterplay {self.name}") if file else None
        try:
            app = registrar.make("counterplay", wanted, self.redirect_uri, certificate)
        except CounterplayError:
            if file:
                file.unlink()  # nothing knows it: the next attempt makes another one
            raise
        key = f"; its private key is in {file}, for its owner only" if file else ""
        click.echo(f"\nMade the registration {app['appId']}{key}.")
        return app

    def _complete(self, registrar: Registrar, app: JsonObject, wanted: Wanted, proof: Proof | None) -> None:
        from counterplay_m365 import setup_proof

        trusted = proof is not None and proof.form == "workload_identity_file"
        try:
            registrar.complete(app, wanted, setup_proof.federated(proof.value) if trusted and proof else None)
        except CounterplayError as error:
            again = proof.flags(app["appId"]) if proof else f"--client-id {app['appId']}"
            raise BlockedError(
                f"the registration {app['appId']} is there, but not complete: {error.message}",
                hint=f"when that is mended, run this again with --create {again}",
            ) from error
