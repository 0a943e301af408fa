"""`playbook approvals`, `approve` and `deny`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click

from counterplay.cli.output import json_option, print_json, print_table
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.runtime.approvals import Approvals


@click.command()
@click.option("--all", "closed_too", is_flag=True, help="Those that are closed, too.")
@json_option
def approvals(closed_too: bool, as_json: bool) -> None:
    """List the questions that runs wait on: `playbook approve ID` and `playbook deny ID` answer them."""
    from dataclasses import asdict

    with _service() as service:
        found = service.store.listed(None if closed_too else "open") if service is not None else []
    if as_json:
        print_json([asdict(one) for one in found])
        return
    print_table(
        ["ID", "STATUS", "PLAYBOOK", "RUN", "ASKED", "UNTIL", "ANSWERS", "QUESTION"],
        [
            [
                one.id,
                one.status,
                one.playbook,
                f"{one.run_id} {one.step_id}",
                one.created[:19] + "Z",
                one.deadline[:19] + "Z" if one.deadline else "-",
                f"{sum(each.decision == 'approve' for each in one.answers)} of {one.people}",
                one.question,
            ]
            for one in found
        ],
    )


_comment = click.option("--comment", default="", help="Why; it is kept with the answer.")


@click.command()
@click.argument("approval_id", metavar="ID")
@_comment
@click.option("--form", metavar="JSON", help="What the question's form asks for.")
def approve(approval_id: str, comment: str, form: str | None) -> None:
    """Approve what a run asks. ID is that of the question, or of a run with one open question."""
    _answer(approval_id, "approve", comment, form)


@click.command()
@click.argument("approval_id", metavar="ID")
@_comment
def deny(approval_id: str, comment: str) -> None:
    """Deny what a run asks: one person who denies decides."""
    _answer(approval_id, "deny", comment, None)


def _answer(text: str, decision: Literal["approve", "deny"], comment: str, form: str | None) -> None:
    from counterplay.people import this_person

    with _service() as service:
        identity = _identity(service, text)
        assert service is not None
        after = service.answer(
            identity,
            decision,
            person=this_person(),
            source=f"playbook {decision}",
            comment=comment,
            form=_decoded(form),
        )
    if after.status == "open":
        given = sum(each.decision == "approve" for each in after.answers)
        click.echo(f"{after.id}: recorded, {given} of {after.people} approvals")
    else:
        goes_on = "goes on in a worker (`playbook up`, or any `playbook run`)"
        click.echo(f"{after.id} is {after.status}; run {after.run_id} {goes_on}")


def _identity(service: Approvals | None, text: str) -> str:
    found = service.store.find(text) if service is not None else []
    if not found and service is not None:
        found = [one for one in service.store.of_run(text) if one.status == "open"]
    if not found:
        raise ConfigError(
            f"there is no approval {text!r}", hint="`playbook approvals` lists those that are open"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{text!r} stands for {len(found)} approvals: {', '.join(one.id for one in found)}",
            hint="write the whole id of one",
        )
    return found[0].id


def _decoded(form: str | None) -> Any:
    import json

    if form is None:
        return None
    try:
        return json.loads(form)
    except ValueError as error:
        raise ConfigError(
            f"--form is not JSON: {error}", hint='write for instance --form \'{"ticket": "T-1"}\''
        ) from error


@contextmanager
def _service() -> Iterator[Approvals | None]:
    """The approvals of the store, beside a worker; None when nothing has run yet."""
    from counterplay.cli.runs import _store
    from counterplay.runtime.approvals import Approvals
    from counterplay.store.approvals import ApprovalStore

    with _store() as store:
        yield None if store is None else Approvals(ApprovalStore(store.database))
