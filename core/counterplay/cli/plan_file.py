"""`playbook run NAME --plan-file FILE`: carry out what somebody approved, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from counterplay.cli.output import print_json, say
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.events import JsonObject
    from counterplay.runtime.carrying import Carried
    from counterplay.store.runs import NewRun
    from counterplay.workspace import Workspace


def carry_out_plans(name: str, file: str, as_json: bool) -> int:
    """Run each plan of the file once, ever; returns the exit code.

    What was carried out before is said to have been, with its run; its outcome counts for the exit code.

    ConfigError: it is no plan of this playbook, or the playbook was edited since.
    """
    from counterplay.cli.loading import open_workspace
    from counterplay.cli.run import signals
    from counterplay.runtime.carrying import carry_out
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.plans import read_plans

    try:
        plans = read_plans(Path(file).read_bytes(), file)
    except OSError as error:
        raise ConfigError(f"cannot read the plan: {error.strerror}", path=file) from error
    workspace = open_workspace()
    made = [_run_of(workspace, name, plan, file) for plan in plans if plan["filtered"] is None]
    if not made:
        raise ConfigError("the plan starts no run", path=file)
    stop = threading.Event()
    with signals(stop):
        carried = carry_out(Opener(workspace, stop), name, made, stop, lambda text: say(text, err=True))
    if as_json:
        print_json({"exit_code": carried.exit_code, "runs": _report(carried)})
    else:
        for line in _told(carried, name):
            say(line)
    return carried.exit_code


def _report(carried: Carried) -> list[JsonObject]:
    """How each run stands; `already`: it was over before, and nothing was done now."""
    runs: list[JsonObject] = [
        {
            "id": one.id,
            "status": one.status,
            "error": one.error,
            "already": one.id in carried.over,
            "ended": one.ended,
        }
        for one in carried.runs
    ]
    gone = [
        {"id": one, "status": "deleted", "error": None, "already": True, "ended": None}
        for one in carried.deleted
    ]
    return runs + gone


def _told(carried: Carried, name: str) -> Iterator[str]:
    """The same for people, a line for each run."""
    for one in carried.runs:
        error = f": {one.error}" if one.error else ""
        if one.id in carried.over:
            word = "was cancelled" if one.status == "cancelled" else one.status
            yield _already(one.id, one.playbook, f"it {word} at {(one.ended or '')[:19]}Z{error}")
        else:
            yield f"{one.id}  {one.playbook}  {one.status}" + (f"  {one.error}" if one.error else "")
    for identity, at in carried.deleted.items():
        yield _already(identity, name, f"that run was deleted at {at[:19]}Z, as `retention:` says")


def _already(identity: str, name: str, fact: str) -> str:
    return (
        f"this plan was carried out already, by the run {identity} of {name}: {fact}; "
        "nothing was done now; to do it again, make a new plan"
    )


def _run_of(workspace: Workspace, name: str, plan: JsonObject, file: str) -> NewRun:
    from counterplay.cli.loading import load_playbook
    from counterplay.events import encoded
    from counterplay.language import Playbook
    from counterplay.runtime.plans import agreed_meta
    from counterplay.store.runs import NewRun, run_id

    present = load_playbook(workspace, name, plan["connections"])
    if not isinstance(present, Playbook) or present.name != plan["playbook"]:
        raise ConfigError(f"it is a plan of {plan['playbook']!r}, not of {name!r}", path=file)
    if present.document != plan["document"]:
        raise ConfigError(f"{name} was edited after the plan was made", path=file, hint="make a new plan")
    agreed = agreed_meta(plan)
    key = f"plan:{agreed['digest']}"  # the same plan is carried out once
    return NewRun(
        id=run_id(plan["tenant"], present.name, key),
        tenant=plan["tenant"],
        playbook=present.name,
        run_key=key,
        document=present.document,
        event=encoded(plan["event"]),
        meta={**plan["meta"], "_plan": agreed},
        inputs=plan["inputs"],
        connections=plan["connections"],
    )
