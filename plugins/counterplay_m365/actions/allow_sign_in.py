"""The action `m365.allow_sign_in`: let an account in again."""

from __future__ import annotations

from counterplay_m365.actions.sign_in import SetSignIn


class AllowSignIn(SetSignIn):
    """Let an account sign in again, after `m365.block_sign_in`.

    Allowing what is allowed changes nothing. The limits of `m365.block_sign_in` for synced accounts
    and for administrators hold here too. Taken back by `m365.block_sign_in`.

    Needs:
        Graph application permissions `User.EnableDisableAccount.All` and `User.Read.All`.
    Result:
        `{"user_id": str, "account_enabled": true, "note": str | null}`, as of `m365.block_sign_in`.
    Source:
        https://learn.microsoft.com/graph/api/user-update
    """

    name = "allow_sign_in"
    enabled = True
    opposite = "m365.block_sign_in"
