"""std.jsonl: records appended to a file, one JSON document a line."""

import errno
import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay import (
    BlockedError,
    ConfigError,
    Context,
    Event,
    InterruptedWork,
    RejectedError,
    RetryableError,
)
from counterplay_std import jsonl
from counterplay_std.jsonl import Jsonl


def deliver(context: Context, path: Path, *records: bytes, **arguments: Any) -> list[int]:
    """Deliver the records, and return where their lines begin."""
    sink = Jsonl({"path": str(path), **arguments})
    return [int(receipt.remote_id) for receipt in sink.deliver(context, [Event(raw) for raw in records])]


def test_records_are_appended_as_the_bytes_they_came_in(context, tmp_path) -> None:
    """Each delivery goes on behind the last; a receipt is where the line begins."""
    file = tmp_path / "out" / "deep" / "audit.jsonl"
    assert deliver(context, file, b'{"a": 1.0}', b'{"b":"\xc3\xa9"}') == [0, 11]
    assert deliver(context, file, b"{}", fsync=False) == [22]
    assert file.read_bytes() == b'{"a": 1.0}\n{"b":"\xc3\xa9"}\n{}\n'


def test_a_new_file_is_for_its_owner_alone(context, tmp_path) -> None:
    """Audit events are nobody else's business."""
    deliver(context, tmp_path / "a.jsonl", b"{}")
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o077 == 0


def test_a_record_that_spans_lines_is_put_on_one(context, tmp_path) -> None:
    """Numbers and strings keep their spelling; only the space between them goes."""
    file = tmp_path / "a.jsonl"
    deliver(context, file, b'{\r\n  "n" : 1.50E+2,\n "s": "\\u00e9 \\n"\r}', b"{}")
    assert file.read_bytes() == b'{"n":1.50E+2,"s":"\\u00e9 \\n"}\n{}\n'


def test_a_record_that_cannot_be_put_on_one_line_is_rejected(context, tmp_path) -> None:
    """The host then halves the batch down to it; nothing of the batch is written."""
    with pytest.raises(RejectedError, match="cannot be put on one line"):
        deliver(context, tmp_path / "a.jsonl", b"{}", b'{"a":\n')
    assert not (tmp_path / "a.jsonl").exists()


def test_a_half_written_line_is_cut_off(context, tmp_path, caplog) -> None:
    """A crash in the middle of a record never glues it to the next one."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a":1}\n{"b":')
    assert deliver(context, file, b'{"b":2}') == [8]
    assert file.read_bytes() == b'{"a":1}\n{"b":2}\n'
    assert "cut off a half-written last line of 5 bytes" in caplog.text


def test_a_last_line_that_only_lacks_its_end_gets_one(context, tmp_path) -> None:
    """A whole record is not thrown away for a missing line feed."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a":1}\n{"b":2}')
    assert deliver(context, file, b"{}") == [16]
    assert file.read_bytes() == b'{"a":1}\n{"b":2}\n{}\n'


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4), st.data())
def test_whatever_a_crash_left_every_line_is_json(
    tmp_path_factory, texts: list[bytes], data: st.DataObject
) -> None:
    """However many bytes of a delivery reached the disk, the next one leaves whole records only."""
    file = tmp_path_factory.mktemp("crash") / "a.jsonl"
    context = Context(http=None)
    records = [json.dumps({"text": text.hex()}).encode() for text in texts]
    deliver(context, file, *records, fsync=False)
    os.truncate(file, data.draw(st.integers(0, file.stat().st_size)))
    deliver(context, file, *records, fsync=False)
    lines = file.read_bytes().splitlines()
    assert lines[-len(records) :] == records
    assert lines[: -len(records)] == records[: len(lines) - len(records)]


def test_a_half_written_line_longer_than_one_block_is_cut_off(context, tmp_path) -> None:
    """Looking for the last line feed goes back block by block."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a":1}\n{"b":"' + b"x" * 2_500_000)
    assert deliver(context, file, b"{}") == [8]
    assert file.read_bytes() == b'{"a":1}\n{}\n'


def test_a_file_that_is_no_json_is_left_alone(context, tmp_path) -> None:
    """What looks like somebody else's file is neither cut nor added to."""
    file = tmp_path / "notes.txt"
    file.write_text("remember the milk")
    with pytest.raises(BlockedError, match=r"notes\.txt does not end in a line of JSON; .*`path`"):
        deliver(context, file, b"{}")
    assert file.read_text() == "remember the milk"


def test_a_full_disk_leaves_no_half_delivery(context, tmp_path, monkeypatch) -> None:
    """What fitted is taken back, and the host tries again later."""
    file = tmp_path / "a.jsonl"
    deliver(context, file, b"{}")
    write = os.write

    def full(handle: int, content: memoryview) -> int:
        if len(content) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, content[:10])

    monkeypatch.setattr(jsonl.os, "write", full)
    with pytest.raises(RetryableError, match=r"cannot write to .*a\.jsonl: No space left on device; free"):
        deliver(context, file, b'{"a":"0123456789"}')
    assert file.read_bytes() == b"{}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_device_is_not_a_file_to_append_to(context) -> None:
    """A path that is no regular file is refused, because it cannot be repaired."""
    with pytest.raises(BlockedError, match="/dev/full is not a regular file"):
        deliver(context, Path("/dev/full"), b"{}")


def test_a_directory_is_named_as_what_it_is(context, tmp_path) -> None:
    """A person has to change the path."""
    with pytest.raises(BlockedError, match=r"cannot write to .*: Is a directory; change the sink's `path`"):
        deliver(context, tmp_path, b"{}")


def test_a_folder_that_cannot_be_made_is_reported(context, tmp_path) -> None:
    """A file stands where a folder is needed."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BlockedError, match=r"cannot write to .*a\.jsonl: "):
        deliver(context, tmp_path / "file" / "sub" / "a.jsonl", b"{}")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_missing_rights_block(context, tmp_path) -> None:
    """A person has to give the rights; the records wait."""
    tmp_path.chmod(0o500)
    with pytest.raises(BlockedError, match="Permission denied"):
        deliver(context, tmp_path / "a.jsonl", b"{}")


def test_missing_rights_block_whoever_runs_the_tests(context, tmp_path, monkeypatch) -> None:
    """The same as above, with the operating system's answer given by hand."""

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(jsonl.os, "open", denied)
    with pytest.raises(BlockedError, match=r"a\.jsonl: Permission denied; change .*the records wait"):
        deliver(context, tmp_path / "a.jsonl", b"{}")


def test_a_writer_waits_for_the_other(context, tmp_path) -> None:
    """A lock that is given back in time costs nothing but the wait."""
    file = tmp_path / "a.jsonl"
    other = os.open(file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    release = threading.Timer(0.01, os.close, [other])
    release.start()
    assert deliver(context, file, b"{}") == [0]
    release.join()


def test_a_lock_that_is_never_given_back_is_tried_again_later(context, tmp_path, monkeypatch) -> None:
    """The host's retry waits longer than one delivery should."""
    monkeypatch.setattr(jsonl, "LOCK_WAIT", 0.0)
    file = tmp_path / "a.jsonl"
    with file.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RetryableError, match=r"a\.jsonl is locked by another writer"):
            deliver(context, file, b"{}")


def test_a_stop_ends_the_wait_for_a_lock(context, tmp_path) -> None:
    """Ctrl-C does not wait for somebody else's lock."""
    context.stop.set()
    file = tmp_path / "a.jsonl"
    with file.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InterruptedWork):
            deliver(context, file, b"{}")


def test_many_writers_never_mix_their_lines(context, tmp_path) -> None:
    """Receipts of all writers point at their own records."""
    file = tmp_path / "a.jsonl"
    found: dict[int, bytes] = {}

    def write(number: int) -> None:
        records = [json.dumps({"writer": number, "n": n}).encode() for n in range(20)]
        for offset, record in zip(deliver(context, file, *records, fsync=False), records, strict=True):
            found[offset] = record

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = file.read_bytes()
    assert len(found) == 80
    for offset, record in found.items():
        assert content[offset : offset + len(record) + 1] == record + b"\n"


@pytest.mark.parametrize("arguments", [{}, {"path": ""}, {"path": "a", "fsync": "no"}, {"file": "a"}])
def test_the_schema_refuses(accept, arguments: Any) -> None:
    """A path is needed, and nothing else is known but `fsync`."""
    with pytest.raises(ConfigError):
        accept("std.jsonl", arguments)
