"""YAML as playbooks are written in it: 1.2 scalars, places, and limits."""

# ruff: noqa: E501  # a case on one line reads better than one that is wrapped

from __future__ import annotations

import time
from typing import Any

import pytest

from counterplay.language import PlaybookError
from counterplay.language.yaml_text import MAX_BYTES, read


def problem(text: bytes | str) -> str:
    """What is said of a text that cannot be read."""
    with pytest.raises(PlaybookError) as caught:
        read(text.encode() if isinstance(text, str) else text, "p.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("1:20", "1:20"),
        ("2026-03-02", "2026-03-02"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'12'", "12"),
        ('"true"', "true"),
    ],
)
def test_scalars_follow_yaml_1_2(written: str, value: Any) -> None:
    """Only true, false, null and numbers are anything but text."""
    found = read(f"key: {written}\n".encode(), "p.yaml").data["key"]

    assert (type(found), found) == (type(value), value)


def test_every_key_and_value_keeps_its_place() -> None:
    """Lines and columns count from 1, for values in flow style, too."""
    document = read(b"a:\n  b: [1, {c: 2}]\n", "p.yaml")

    assert document.place(("a", "b", 1, "c")) == (2, 14)
    assert document.place(("a", "b", 1, "c"), key=True) == (2, 11)
    assert document.place(("a", "gone", "deeper")) == (2, 3)


def test_an_alias_gives_the_same_value_again() -> None:
    """Anchors may be used to say something once."""
    assert read(b"a: &x {k: [1]}\nb: *x\n", "p.yaml").data == {"a": {"k": [1]}, "b": {"k": [1]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml:1:1: the file is empty; begin with `name:` and `trigger:`; `playbook init` writes one"),
        ("# only\n", "p.yaml:1:1: the file is empty; begin with `name:` and `trigger:`; `playbook init` writes one"),
        ("- a\n", "p.yaml:1:1: the file is not a mapping; begin with `name:` and `trigger:`; `playbook init` writes one"),
        ("a:\n\tb: 1\n", "p.yaml:2:1: a tab in the indentation; indent with spaces"),
        ("a: 1\n\tb: 2\n", "p.yaml:2:1: a tab in the indentation; indent with spaces"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2:1: a second document begins; write one playbook a file, without ---"),
        (b"a: ok\nb: \xff", "p.yaml:2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"a: x\x00", "p.yaml:1:5: the control character U+0000; remove it"),
        ("a: @b", "p.yaml:1:4: this is not YAML: found character that cannot start any token; "
                  "quote a text that begins with @"),
        ("a: b: c", "p.yaml:1:5: this is not YAML: mapping values are not allowed in this context; "
                    "quote a text that holds a colon and a space"),
        ("{a: 1", "p.yaml:2:1: this is not YAML: did not find expected ',' or '}'; "
                  "check the indentation, the brackets and the quotes just before it"),
        ("a: !!python/object:os.system x",
         "p.yaml:1:4: the tag 'tag:yaml.org,2002:python/object:os.system'; "
         "remove it; quote a value to make it a text"),
        ("1: a", "p.yaml:1:1: a key that is not a text; quote it"),
        ("? [a]\n: b", "p.yaml:1:3: a key that is not a text; quote it"),
        ("<<: {a: 1}", "p.yaml:1:1: merge keys (<<) are not part of YAML 1.2; write the members out"),
        ("a: *gone", "p.yaml:1:4: no anchor &gone stands before this; write it out"),
        ("a: &x [*x]", "p.yaml:1:8: *x stands inside itself; write it out"),
        ("a: .inf", "p.yaml:1:4: .inf has no place in JSON; quote it to make it a text"),
        ("a: 1e999", "p.yaml:1:4: a number that is too large; quote it to make it a text"),
        ("a: 99999999999999999999", "p.yaml:1:4: a number of more than 64 bits; quote it to make it a text"),
        ("a: " + "[" * 60, "p.yaml:1:53: nested more than 50 deep; write it flatter"),
        ("- " * 5000 + "a", "p.yaml:1:101: nested more than 50 deep; write it flatter"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_explained_at_its_place(text: bytes | str, message: str) -> None:
    """One line says where it is, what is wrong and what to write."""
    assert problem(text) == message


def test_every_duplicate_key_is_found() -> None:
    """A key that stands twice would hide one of its values."""
    assert problem("a: 1\nb: {c: 1, c: 2}\na: 2\n").split("\n") == [
        "p.yaml:2:11: the key 'c' stands twice (first in line 2); keep one of them",
        "p.yaml:3:1: the key 'a' stands twice (first in line 1); keep one of them",
    ]


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    """The size is looked at before anything else."""
    assert problem(b"[" * (MAX_BYTES + 1)) == (
        "p.yaml:1:1: the file has 1,000,001 bytes; 1,000,000 is the limit: split it up"
    )


def test_an_anchor_bomb_is_refused_without_expanding_it() -> None:
    """Nine levels of nine aliases would be 400 million values."""
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)]
    began = time.process_time()

    found = problem("a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(levels))

    assert (
        found == "p.yaml:5:53: the file grows to more than 20,000 values by its aliases; write it out smaller"
    )
    assert time.process_time() - began < 1
