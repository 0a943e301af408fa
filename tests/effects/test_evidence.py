"""`playbook evidence`: one archive about one run that verifies by itself."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counterplay.evidence import check


@pytest.fixture
def archive(bench: Any, block: Callable[..., Any], tmp_path: Path) -> Path:
    """Evidence of the first of two runs, with a delivery."""
    bench.write(block("{{ event.user }}"), sinks=[{"uses": "intake.forward", "connection": "siem"}])
    for number in (2, 3):
        assert bench.run(event={"user": bench.user(number)["id"]}).exit_code == 0
    target = tmp_path / "evidence.zip"
    result = bench.call("evidence", bench.runs()[-1].id, "--output", str(target))
    assert result.exit_code == 0, result.stdout
    return target


def rewritten(archive: Path, name: str, change: Callable[[str], str]) -> Path:
    """The archive with one file changed."""
    target = archive.with_name("changed.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for one in old.namelist():
            text = old.read(one).decode()
            new.writestr(one, change(text) if one == name else text)
    return target


def test_it_holds_everything_about_the_run_and_nothing_of_others(archive: Path, bench: Any) -> None:
    """Event, playbook, states before and after, requests, receipts and the chain."""
    with zipfile.ZipFile(archive) as found:
        read = {name: found.read(name).decode() for name in found.namelist()}

    (effect,) = json.loads(read["effects.json"])
    user = bench.user(2)
    assert effect["before"]["accountEnabled"] is True
    assert effect["after"]["accountEnabled"] is False
    assert effect["calls"][0]["url"].endswith(user["id"])
    assert json.loads(read["event.json"]) == {"user": user["id"]}
    assert len(json.loads(read["receipts.json"])) == 1
    assert bench.user(3)["id"] not in "".join(read.values())


def test_it_verifies_by_itself(archive: Path, bench: Any, tmp_path: Path) -> None:
    """Without a workspace or a store beside it."""
    moved = tmp_path / "elsewhere" / "e.zip"
    moved.parent.mkdir()
    archive.rename(moved)
    (bench.root / ".counterplay" / "state.db").unlink()

    result = bench.call("evidence", "--verify", str(moved))

    assert result.exit_code == 0
    assert result.stdout.startswith("it holds: run r-")


@pytest.mark.parametrize("name", ["effects.json", "event.json", "audit.jsonl", "playbook.json"])
def test_a_changed_file_is_found(archive: Path, name: str) -> None:
    """By its hash in the manifest."""
    changed = rewritten(archive, name, lambda text: text.replace("{", "{ ", 1))

    assert any(name in flaw or "cannot be read" in flaw for flaw in check(changed).flaws)


def forged(archive: Path, name: str, change: Callable[[str], str]) -> Path:
    """The archive with one file changed, and its hash in the manifest as well."""
    with zipfile.ZipFile(archive) as found:
        text = change(found.read(name).decode())

    def manifest(old: str) -> str:
        document = json.loads(old)
        document["files"][name] = hashlib.sha256(text.encode()).hexdigest()
        return json.dumps(document)

    rewritten(archive, "manifest.json", manifest).rename(archive)
    return rewritten(archive, name, lambda _: text)


def test_an_effect_that_differs_from_the_chain_is_found(archive: Path) -> None:
    """Who fixes the manifest as well still has the audit log against them."""
    changed = forged(
        archive,
        "effects.json",
        lambda text: text.replace('"accountEnabled": true', '"accountEnabled": null'),
    )

    assert check(changed).flaws == ("the effect of block_sign_in is another one than the audit log holds",)


@pytest.mark.parametrize(
    ("receipts", "flaw"),
    [
        ({"r-0 sink:1": {"receipts": ["a"]}}, "the receipts of r-0 sink:1 are not in the audit log"),
        (None, "are others than the audit log holds"),
    ],
)
def test_receipts_that_the_chain_does_not_hold_are_found(archive: Path, receipts: Any, flaw: str) -> None:
    """Nobody claims a delivery afterwards that the receiver did not confirm."""

    def change(text: str) -> str:
        return json.dumps(receipts or {name: {"receipts": ["made up"]} for name in json.loads(text)})

    (found,) = check(forged(archive, "receipts.json", change)).flaws

    assert flaw in found


def test_the_plan_that_was_approved_is_in_it(bench: Any, block: Callable[..., Any], tmp_path: Path) -> None:
    """A run that carried out a plan shows it."""
    bench.write(block(bench.user()["id"], id="block"))
    (bench.root / "event.json").write_text("{}")
    plan = bench.root / "plan.json"
    plan.write_text(bench.call("plan", "test", "--event", "event.json", "--json").stdout)
    bench.call("run", "test", "--plan-file", str(plan))
    target = tmp_path / "e.zip"

    bench.call("evidence", bench.runs()[0].id, "--output", str(target))

    with zipfile.ZipFile(target) as found:
        assert json.loads(found.read("plan.json"))["steps"]["block"]["calls"][0]["method"] == "PATCH"
    assert check(target).flaws == ()
