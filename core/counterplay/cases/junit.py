"""JUnit XML, as CI systems read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from counterplay.cases.runner import Verdict
from counterplay.language.findings import Finding

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdicts: Sequence[Verdict], findings: Sequence[Finding]) -> bytes:
    """One suite a file, one test case a case; a file that is wrong is a suite with one error."""
    root = ElementTree.Element("testsuites", name="playbook test")
    for file in sorted({one.file for one in verdicts}):
        cases = [one for one in verdicts if one.file == file]
        suite = _suite(root, file, cases)
        for one in cases:
            element = ElementTree.SubElement(
                suite,
                "testcase",
                classname=one.playbook,
                name=_clean(one.case),
                file=file,
                line=str(one.line),
                time=f"{one.seconds:.3f}",
            )
            if one.wrong:
                failure = ElementTree.SubElement(element, "failure", message=_clean(one.wrong[0]))
                failure.text = _clean("\n".join(one.wrong))
    for file in sorted({one.path for one in findings}):
        wrong = [one for one in findings if one.path == file]
        suite = _suite(root, file, [], errors=1)
        element = ElementTree.SubElement(suite, "testcase", classname=file, name="is a test", file=file)
        error = ElementTree.SubElement(element, "error", message=_clean(wrong[0].message))
        error.text = _clean("\n".join(map(str, wrong)))
    ElementTree.indent(root)
    found: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def _suite(
    root: ElementTree.Element, file: str, cases: Sequence[Verdict], errors: int = 0
) -> ElementTree.Element:
    return ElementTree.SubElement(
        root,
        "testsuite",
        name=file,
        tests=str(len(cases) + errors),
        failures=str(sum(bool(one.wrong) for one in cases)),
        errors=str(errors),
        time=f"{sum(one.seconds for one in cases):.3f}",
    )


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
