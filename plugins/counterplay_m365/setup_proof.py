"""What the app of a guided set-up proves its identity with: a file, a reference, or the machine itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterplay import BlockedError, ConfigError
from counterplay_m365.credentials import FORMS, SYSTEM, FederatedToken
from counterplay_m365.entra import claims
from counterplay_m365.registration import Federated

_FILES = ("certificate_file", "workload_identity_file")


@dataclass(frozen=True, slots=True)
class Proof:
    """One of the four forms of a connection, with its value: a path from the root, a reference, an id."""

    form: str
    value: str

    @property
    def managed(self) -> bool:
        """Whether Azure gives the identity, so that no registration and no consent belongs to it."""
        return self.form == "managed_identity"

    def settings(self, client_id: str | None) -> dict[str, Any]:
        """What stands in counterplay.yaml."""
        own = {} if self.managed else {"client_id": client_id}
        return {**own, self.form: self.value}

    def flags(self, client_id: str | None) -> str:
        """What the command is run again with."""
        own = "" if self.managed else f"--client-id {client_id} "
        value = f"'{self.value}'" if self.form == "client_secret" else self.value
        return f"{own}--{self.form.replace('_', '-')} {value}"

    def how(self) -> str:
        """What an administrator does for it on the app's page `Certificates & secrets`."""
        if self.form == "client_secret":
            return "Certificates & secrets > Client secrets > New client secret (its value, not its ID)"
        if self.form == "workload_identity_file":
            one = federated(self.value)
            return (
                "Certificates & secrets > Federated credentials > Add credential > Other issuer:\n"
                f"     issuer {one.issuer}, subject {one.subject}, audience {', '.join(one.audiences)}"
            )
        return "Certificates & secrets > Certificates > Upload certificate (the public part, no private key)"


def chosen(given: dict[str, str | None], *, new: bool = False, unnamed: bool = False) -> Proof | None:
    """The credential that the flags name, by form; None for none yet.

    With `new` a certificate is to be made; with `unnamed` nothing tells which identity `system` is, though
    it has to be known.

    ConfigError: more than one; a secret in the clear, which would be printed; a file that no waiting
    brings; an identity that cannot be found.
    """
    named = [form for form in FORMS if given.get(form)]
    if len(named) > 1:
        flags = " and ".join(f"--{form.replace('_', '-')}" for form in named)
        raise ConfigError(f"{flags} are both given", hint="an app has one credential here: choose one")
    if not named:
        return None
    (form,) = named
    value = str(given[form])
    if form == "client_secret" and not value.startswith("${"):
        raise ConfigError(
            "--client-secret takes a reference, not the secret itself",
            hint="export it, and write '${env:CONTOSO_SECRET}' in single quotes",
        )
    if form in _FILES:
        flag = f"--{form.replace('_', '-')}"
        if not (new and form == "certificate_file") and not Path(value).is_file():
            raise ConfigError(f"there is no file {value}", hint=f"check {flag}")
        value = str(Path(value).absolute())
    if form == "workload_identity_file":
        federated(value)
    if unnamed and form == "managed_identity" and value == SYSTEM:
        raise ConfigError(
            "--create cannot tell which identity `system` is",
            hint="add --principal-id: the Object (principal) ID on the machine's page Identity",
        )
    return Proof(form, value)


def federated(file: str) -> Federated:
    """What the token in a file says of who issued it, for whom and to whom. ConfigError: it is no token."""
    try:
        found = claims(FederatedToken(Path(file)).read())
        audience = found["aud"]
        audiences = (audience,) if isinstance(audience, str) else tuple(map(str, audience))
        return Federated(str(found["iss"]), str(found["sub"]), audiences)
    except (IndexError, ValueError, AttributeError, TypeError, KeyError):
        raise ConfigError(
            f"{file} holds no token that names its issuer, subject and audience",
            hint="check --workload-identity-file",
        ) from None
    except BlockedError as error:
        raise ConfigError(error.message, hint="check --workload-identity-file") from error
