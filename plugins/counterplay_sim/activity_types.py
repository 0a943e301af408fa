"""`resources/dlpSensitiveTypes`: the names of the sensitive information types that DLP events mention."""

from __future__ import annotations

import re

from counterplay_sim.activity_errors import AfError

_NAMES = {
    "50842eb7-edc8-4019-85dd-5a5c1f2bb085": ("CreditCardNumber", "Kreditkartennummer"),
    "a44669fe-0d48-453d-a9b1-2cc83f2cba77": ("U.S.SocialSecurityNumber(SSN)", "US-Sozialversicherungsnummer"),
    "e7dc4711-11b7-4cb0-b88b-2c394a771f0e": ("InternationalBankingAccountNumber(IBAN)", "IBAN"),
    "0e9b3178-9678-47dd-a509-37222ca96b42": ("EUDebitCardNumber", "EU-Debitkartennummer"),
}
_LANGUAGE = re.compile(r"(?:[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)(?:\s*;\s*q=[01](?:\.\d{1,3})?)?")


def sensitive_types(accept_language: str) -> list[dict[str, str]]:
    """Ids and names in the language of an `Accept-Language` header; English when it has none of it.

    AfError: more than one language is asked for, or the header cannot be read.
    """
    languages = [one.strip() for one in accept_language.split(",")]
    if len(languages) > 1:
        raise AfError(
            "AF20053", "The Accept-Language header contains more than one language; only one is supported."
        )
    if _LANGUAGE.fullmatch(languages[0]) is None:
        raise AfError("AF20054", "The syntax of the Accept-Language header is invalid.")
    german = languages[0].lower().partition("-")[0] == "de"
    return [{"id": key, "name": names[german]} for key, names in _NAMES.items()]
