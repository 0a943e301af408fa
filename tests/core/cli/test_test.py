"""`playbook test`: what it prints, its exit codes, coverage, JUnit, and watching."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

PLAYBOOK = """\
name: tell
trigger: {uses: std.manual}
filter: event.n > 0
steps:
  - {id: rest, uses: std.wait, with: {duration: 4h}, when: event.late}
sinks:
  - {uses: std.jsonl, with: {path: out.jsonl}}
"""
TEST = """\
playbook: tell
cases:
  - name: a late one waits
    given: {event: {n: 1, late: true}}
    expect: {steps: {rest: succeeded}, took: 4h}
  - name: another does not
    given: {event: {n: 1, late: false}}
    expect: {steps: {rest: skipped}, took: 0s}
"""


@pytest.fixture
def written(desk: Any) -> Any:
    """A workspace with one playbook and its test."""
    desk.write("playbooks/tell.yaml", PLAYBOOK)
    desk.write("playbooks/tests/tell.yaml", TEST)
    return desk


def test_cases_that_pass_exit_0(written: Any) -> None:
    """One line a case, then how many there were."""
    said = written.playbook("test")
    assert said.code == 0
    assert said.out.splitlines()[:2] == ["pass  tell: a late one waits", "pass  tell: another does not"]
    assert said.out.splitlines()[2].endswith("0 failed")


def test_a_case_that_fails_says_why_and_where_and_exits_1(written: Any) -> None:
    """The difference stands below the case, which is named with its file and line."""
    written.write("playbooks/tests/tell.yaml", TEST.replace("rest: skipped", "rest: succeeded"))
    said = written.playbook("test", "tell")
    assert said.code == 1
    assert "FAIL  tell: another does not  (playbooks/tests/tell.yaml:6)" in said.out
    assert "      steps.rest: expected succeeded, was skipped" in said.out


def test_a_file_that_is_wrong_exits_2_and_the_others_are_run(written: Any) -> None:
    """Findings as for playbooks."""
    written.write("playbooks/tests/other.yaml", "playbook: tell\ncases: [{name: it, expects: {}}]\n")
    said = written.playbook("test")
    assert said.code == 2
    assert "playbooks/tests/other.yaml:2:20: " in said.out
    assert "pass  tell: a late one waits" in said.out
    assert said.out.rstrip().endswith("1 file could not be used")


def test_a_name_that_nothing_is_about_is_refused(written: Any) -> None:
    """Zero cases must not look like a pass."""
    said = written.playbook("test", "tel")
    assert said.code == 2
    assert "no test is about a playbook 'tel'" in said.err
    assert written.playbook("test", "playbooks/tests/nothing.yaml").code == 2


@pytest.mark.parametrize(
    "text",
    [
        "playbook: tell\ncases: [{name: it, given: {event: {}}, expect: {steps: {rst: skipped}}}]\n",
        "playbook: tel\ncases: [{name: it, given: {event: {}}, expect: {filtered: 1}}]\n",
        "playbok: tell\ncases: []\n",
        "playbook: [tell\n",
    ],
)
def test_a_wrong_file_that_may_be_about_the_named_playbook_is_no_pass(written: Any, text: str) -> None:
    """Whatever the file is called: cases that are not run must not look like a pass."""
    written.write("playbooks/tests/more-of-it.yaml", text)
    said = written.playbook("test", "tell")
    assert said.code == 2
    assert "playbooks/tests/more-of-it.yaml:" in said.out
    assert "pass  tell: a late one waits" in said.out


def test_a_wrong_file_about_another_playbook_is_none_of_the_named_ones_business(written: Any) -> None:
    """Work on one playbook is not held up by another's."""
    written.write("playbooks/second.yaml", PLAYBOOK.replace("name: tell", "name: second"))
    written.write("playbooks/tests/second.yaml", "playbook: second\ncases: []\n")
    assert written.playbook("test", "tell").code == 0
    assert written.playbook("test", "second").code == 2


def test_words_that_no_case_has_are_refused(written: Any) -> None:
    """Zero cases must not look like a pass."""
    said = written.playbook("test", "-k", "anohter")
    assert said.code == 2
    assert "no case has 'anohter' in its name" in said.err


def test_an_empty_file_says_how_tests_begin(written: Any) -> None:
    """And not how playbooks do."""
    written.write("playbooks/tests/tell.yaml", "")
    assert "the file is empty; begin with `playbook:` and `cases:`" in written.playbook("test").out


def test_words_choose_cases(written: Any) -> None:
    """`-k` looks at the names of cases."""
    said = written.playbook("test", "-k", "ANOTHER", "--json")
    assert [one["case"] for one in said.data["cases"]] == ["another does not"]


def test_coverage_names_the_branches_that_no_case_takes(written: Any) -> None:
    """At their places in the playbook; `--fail-under` makes them count."""
    said = written.playbook("test", "--coverage")
    assert said.code == 0
    assert "tell                                     4 of 5 branches\n" in said.out
    assert "      playbooks/tell.yaml:3:9: not tested: filter: it drops no event\n" in said.out
    assert written.playbook("test", "--fail-under", "80").code == 0
    said = written.playbook("test", "--fail-under", "81", "--json")
    assert said.code == 1
    assert said.data["coverage"][0]["taken"] == 4
    dropped = "  - {name: dropped, given: {event: {n: 0}}, expect: {filtered: 1, runs: 0}}\n"
    written.write("playbooks/tests/tell.yaml", TEST + dropped)
    assert written.playbook("test", "--fail-under", "100").code == 0


def test_a_playbook_without_a_test_counts_as_not_covered(written: Any) -> None:
    """Coverage of what is not tested is nothing, not everything."""
    written.write("playbooks/second.yaml", PLAYBOOK.replace("name: tell", "name: second"))
    said = written.playbook("test", "--coverage")
    assert "second                                   0 of 5 branches\n" in said.out


def test_junit_has_a_suite_a_file_and_a_failure_a_case(written: Any) -> None:
    """As CI systems read it; a file that is wrong is an error."""
    written.write("playbooks/tests/tell.yaml", TEST.replace("rest: skipped", "rest: succeeded"))
    written.write("playbooks/tests/other.yaml", "playbook: tell\n")
    assert written.playbook("test", "--junit", "out.xml").code == 2
    root = ElementTree.parse(written.root / "out.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    tell = suites["playbooks/tests/tell.yaml"]
    assert (tell.get("tests"), tell.get("failures"), tell.get("errors")) == ("2", "1", "0")
    failures = {case.get("name"): case.find("failure") for case in tell}
    assert failures["a late one waits"] is None
    failure = failures["another does not"]
    assert failure is not None
    assert failure.get("message") == "steps.rest: expected succeeded, was skipped"
    assert suites["playbooks/tests/other.yaml"].get("errors") == "1"


def test_many_cases_run_in_processes_of_their_own(written: Any) -> None:
    """The same verdicts, in the order of the file."""
    cases = "".join(
        f"  - {{name: case {n}, given: {{event: {{n: {n}}}}}, expect: {{filtered: {int(n == 0)}}}}}\n"
        for n in range(8)
    )
    written.write("playbooks/tests/tell.yaml", f"playbook: tell\ncases:\n{cases}")
    process = written.start("test", "-j", "2", "--json")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    import json

    assert [one["case"] for one in json.loads(out)["cases"]] == [f"case {n}" for n in range(8)]


def test_watching_runs_again_when_a_file_changes(written: Any) -> None:
    """Until it is told to end."""
    with written.start("test", "--watch") as process:
        try:
            assert _summary(process).endswith("0 failed\n")
            written.write("playbooks/tests/tell.yaml", TEST.replace("rest: skipped", "rest: succeeded"))
            assert _summary(process).endswith("1 failed\n")
        finally:
            process.terminate()


def test_watching_outlives_a_file_that_is_away_for_a_moment(written: Any) -> None:
    """As it is while an editor saves it; a named file is watched wherever it lies."""
    written.write("elsewhere/tell.yaml", TEST)
    with written.start("test", "elsewhere/tell.yaml", "--watch") as process:
        try:
            assert _summary(process).endswith("0 failed\n")
            (written.root / "elsewhere/tell.yaml").unlink()
            assert "there is no such file" in process.stderr.readline()
            written.write("elsewhere/tell.yaml", TEST.replace("rest: skipped", "rest: succeeded"))
            assert _summary(process).endswith("1 failed\n")
        finally:
            process.terminate()


def _summary(process: Any) -> str:
    for line in process.stdout:
        if re.match(r"\d+ cases? in ", line):
            return str(line)
    raise AssertionError(process.stderr.read())


def test_the_shipped_tests_pass_and_cover_every_branch(desk: Any) -> None:
    """Outside of a workspace, the shipped playbooks are what is tested."""
    (desk.root / "counterplay.yaml").unlink()
    said = desk.playbook("test", "--fail-under", "100", "-j", "1", "--json")
    assert [one for one in said.data["cases"] if not one["passed"]] == []
    assert [one for one in said.data["coverage"] if one["missing"]] == []
    assert said.code == 0
    assert len(said.data["coverage"]) >= 9


def test_a_playbook_with_the_name_of_a_shipped_one_is_not_held_to_its_cases(desk: Any) -> None:
    """They are about other steps; it has cases of its own, or none."""
    desk.write("playbooks/office365-to-intake.yaml", PLAYBOOK.replace("tell", "office365-to-intake"))
    named = desk.playbook("test", "office365-to-intake")
    assert (named.code, named.out) == (2, "")
    assert "no test is about a playbook 'office365-to-intake'" in named.err
    desk.write("playbooks/tests/office365-to-intake.yaml", TEST.replace("tell", "office365-to-intake"))
    tried = desk.playbook("test", "office365-to-intake", "--json")
    assert {one["file"] for one in tried.data["cases"]} == {"playbooks/tests/office365-to-intake.yaml"}
