"""`triage-alert`: what is found stands at the alert, what is clear is classified, nobody is changed."""

from __future__ import annotations

import json
from typing import Any

NAME = "triage-alert"


def alerts(scene: Any) -> dict[str, dict[str, Any]]:
    """The alerts of the tenant by id, as they are now."""
    return {key: dict(scene.simulator.tenant.alerts[key]) for key in scene.simulator.tenant.alerts}


def test_an_alert_about_a_real_attack_is_classified(attacked: Any) -> None:
    """The rules and the sign-ins tell; others stay as they are when nobody says what they were."""
    scene = attacked("account-takeover", NAME)
    new = {key for key, one in alerts(scene).items() if one["status"] == "new"}

    result = scene.respond(NAME, answer="deny")

    assert result.exit_code == 0, result.output
    now = alerts(scene)
    attack = now[scene.truth["alert"]]
    assert (attack["status"], attack["classification"]) == ("inProgress", "truePositive")
    assert attack["determination"] == "compromisedAccount"
    (comment,) = attack["comments"]
    assert comment["comment"].startswith(f"counterplay: {scene.truth['victim_upn']} (")
    assert "forwards to collect@evil.example" in comment["comment"]
    others = {key for key in new if key != attack["id"]}
    assert len(others) > 1
    assert {now[key]["classification"] for key in others} == {None}
    assert all(now[key]["comments"] for key in others)
    assert scene.verdict.effects == {}
    assert not [key for key in scene.changed() if not key.startswith(("alert/", "incident/"))]


def test_a_person_says_what_an_alert_was(attacked: Any) -> None:
    """The form asks for what Defender wants to know, and nothing else is taken."""
    scene = attacked("quiet", NAME)
    scene.call("run", NAME, "--once")
    question, *rest = scene.data("approvals")
    wrong = json.dumps({"classification": "yes", "determination": "other"})
    right = json.dumps({"classification": "falsePositive", "determination": "notMalicious"})

    refused = scene.call("approve", question["id"], "--form", wrong)
    assert "form.classification: 'yes' is not one of" in refused.stdout
    assert scene.call("approve", question["id"], "--form", right).exit_code == 0
    for one in rest:
        scene.call("deny", one["id"])
    result = scene.call("run", NAME, "--once")

    assert result.exit_code == 0, result.output
    said = [one["classification"] for one in alerts(scene).values() if one["status"] == "inProgress"]
    assert sorted(said, key=str) == [*[None] * len(rest), "falsePositive"]


def test_an_undo_takes_the_triage_back(attacked: Any) -> None:
    """State and classification are as before; the comment stays, and the undo says so."""
    scene = attacked("account-takeover", NAME)
    scene.respond(NAME, answer="deny")

    said = [scene.call("undo", run).output for run in scene.runs(NAME)]

    members = {key.rpartition("/")[2] for key in scene.changed()}
    assert members == {"comments", "lastUpdateDateTime"}
    assert "m365.comment_alert cannot be taken back" in "".join(said)


def test_a_plan_shows_the_comment_before_anybody_reads_it(attacked: Any) -> None:
    """Reads go through in a plan, so its text is the one that would be written."""
    scene = attacked("account-takeover", NAME)

    result = scene.call("plan", NAME, "--event", str(scene.event(NAME)))

    assert result.exit_code == 0, result.output
    assert "forwards to collect@evil.example" in result.output
    assert "m365.classify_alert" in result.output
    assert scene.changed() == {}
