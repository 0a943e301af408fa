"""The action `m365.block_sign_in`: keep an account out."""

from __future__ import annotations

from counterplay_m365.actions.sign_in import SetSignIn


class BlockSignIn(SetSignIn):
    """Block an account, so that nobody can sign in with it.

    Sessions that are open go on: precede or follow it with `m365.revoke_sessions`. An account that
    is synced from Active Directory refuses it, or is allowed again at the next synchronisation:
    disable it there. Accounts with an administrator role need an Entra role on the app itself.
    Blocking what is blocked changes nothing. Taken back by `m365.allow_sign_in`.

    Needs:
        Graph application permissions `User.EnableDisableAccount.All` and `User.Read.All`.
    Result:
        `{"user_id": str, "account_enabled": false, "note": str | null}`; `note` says when Active
        Directory owns the account, and may undo it.
    Source:
        https://learn.microsoft.com/graph/api/user-update
    """

    name = "block_sign_in"
    enabled = False
    opposite = "m365.allow_sign_in"
