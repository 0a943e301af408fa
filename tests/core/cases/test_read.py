"""Files of cases that are wrong: every finding has its line, its column and what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from counterplay.language import PlaybookError

PLAYBOOK = """\
name: tried
trigger: {uses: std.manual}
inputs: {limit: {type: integer, default: 1}}
steps:
  - {id: user, uses: m365.get_user, connection: contoso, with: {user_id: a}}
  - {id: block, uses: m365.block_sign_in, connection: contoso, with: {user_id: a}, verify: {after: [5m, 24h]}}
  - {id: rest, uses: std.wait, with: {duration: 1s}}
sinks:
  - {uses: std.jsonl, with: {path: out.jsonl}}
"""


@pytest.fixture
def findings(bench: Any, tmp_path: Path) -> Any:
    """What is said of a file of cases about the playbook above."""
    (tmp_path / "playbooks" / "tried.yaml").write_text(PLAYBOOK)
    file = tmp_path / "playbooks" / "tests" / "tried.yaml"

    def _findings(text: str) -> list[str]:
        file.write_text(text)
        with pytest.raises(PlaybookError) as error:
            bench.read(file)
        return [str(one).removeprefix("playbooks/tests/") for one in error.value.findings]

    return _findings


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("expect: {stat: done}", "tried.yaml:4:14: "),
        ("expect: {status: done}", "tried.yaml:4:22: "),
        ("given: {now: yesterday}\n    expect: {runs: 1}", "tried.yaml:4:18: "),
        (
            "given: {answers: {usr: {result: {}}}}\n    expect: {runs: 1}",
            "tried.yaml:4:23: the playbook has no step 'usr'; did you mean 'user'?",
        ),
        (
            "given: {answers: {user: {result: {idd: a}}}}\n    expect: {runs: 1}",
            "tried.yaml:4:39: m365.get_user gives no such result: ",
        ),
        (
            "given: {answers: {user: [{}, {result: {accountEnabled: maybe}}]}}\n    expect: {runs: 1}",
            "tried.yaml:4:60: m365.get_user gives no such result: ",
        ),
        (
            "given: {answers: {user: {result: {}, error: gone}}}\n    expect: {runs: 1}",
            "tried.yaml:4:42: an attempt that fails has no result; give one of them",
        ),
        (
            "given: {answers: {rest: {}}}\n    expect: {runs: 1}",
            "tried.yaml:4:23: std.wait directs the run, so that it takes no answer; what people say stands",
        ),
        (
            "given: {inputs: {limits: 2}}\n    expect: {runs: 1}",
            "tried.yaml:4:22: the playbook has no input 'limits'; did you mean 'limit'?",
        ),
        ("given: {inputs: {limit: many}}\n    expect: {runs: 1}", "tried.yaml:4:29: "),
        (
            "given: {event: {}, events: []}\n    expect: {runs: 1}",
            "tried.yaml:4:13: both `event` and `events`; give one of them",
        ),
        (
            "given: {guardrails: {read_onl: true}}\n    expect: {runs: 1}",
            "tried.yaml:4:26: ",
        ),
        (
            "given: {internal: {domain: [contoso.com]}}\n    expect: {runs: 1}",
            "tried.yaml:4:24: ",
        ),
        (
            "expect: {steps: {user: succeeded, other: skipped}}",
            "tried.yaml:4:39: the playbook has no step 'other'; its steps: user, block, rest",
        ),
        (
            "expect: {effects: [{step: other}]}",
            "tried.yaml:4:31: the playbook has no step 'other'; its steps: user, block, rest",
        ),
        (
            "expect: {sinks: {intake.forward: events}}",
            "tried.yaml:4:22: the playbook has no sink 'intake.forward'; its sinks: std.jsonl",
        ),
        (
            "given: {answers: {block: {looks: {5min: true}}}}\n    expect: {runs: 1}",
            "tried.yaml:4:39: the step block is not looked at after 5min; its looks: 5m, 24h",
        ),
        (
            "expect: {looks: [{step: user, after: 5m}]}",
            "tried.yaml:4:42: the step user is not looked at after 5m; give it `verify: {after: [...]}`",
        ),
        (
            "given: {meanwhile: [{after: 1h, tenant: {}}]}\n    expect: {runs: 1}",
            "tried.yaml:4:13: no tenant is simulated in the case 'it'; give `tenant: {}`",
        ),
        (
            "expect: {runs: [], status: failed}",
            "tried.yaml:4:24: both `runs` and `status`; put `status` into `runs`",
        ),
        (
            "expect: {runs: 2, status: failed}",
            "tried.yaml:4:23: `status` is about one run, not 2; list the `runs`",
        ),
    ],
)
def test_what_is_wrong_with_a_case_is_told_at_its_place(findings: Any, case: str, said: str) -> None:
    """One finding for one mistake."""
    (found,) = findings(f"playbook: tried\ncases:\n  - name: it\n    {case}\n")
    assert found.startswith(said)


def test_a_playbook_that_is_wrong_or_not_there_is_told(findings: Any, tmp_path: Path) -> None:
    """The test cannot be tried, and says why at `playbook:`."""
    cases = "cases: [{name: it, expect: {runs: 1}}]\n"
    (found,) = findings(f"playbook: trie\n{cases}")
    assert found == "tried.yaml:1:11: no playbook is called 'trie'; did you mean 'tried'?"
    (tmp_path / "playbooks" / "wrong.yaml").write_text(
        "name: wrong\ntrigger: {uses: std.manuel}\nsinks: []\n"
    )
    (found,) = findings(f"playbook: wrong\n{cases}")
    assert found.startswith("tried.yaml:1:11: the playbook wrong is wrong: playbooks/wrong.yaml:2:17: ")
    (found,) = findings(f"playbook: quickstart\n{cases}")
    assert found.startswith("tried.yaml:1:11: quickstart is a set, which has no steps of its own; test ")


def test_two_cases_of_one_name_are_refused(findings: Any) -> None:
    """A report could not tell them apart."""
    one = "  - {name: it, expect: {runs: 1}}\n"
    (found,) = findings(f"playbook: tried\ncases:\n{one}{one}")
    assert found == "tried.yaml:4:12: a case of that name stands in line 3; say what is different"


def test_what_is_no_yaml_is_told_at_its_place(findings: Any) -> None:
    """As for playbooks."""
    (found,) = findings("playbook: tried\ncases: [\n")
    assert found.startswith("tried.yaml:3:1: this is not YAML")
