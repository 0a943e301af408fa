"""std.jsonl: records appended to a file, one JSON document a line."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import orjson

from counterplay import (
    BlockedError,
    Context,
    Event,
    InterruptedWork,
    Receipt,
    RejectedError,
    RetryableError,
    Sink,
    WorkError,
)

LOCK_WAIT = 5.0
"""Seconds to wait while somebody else writes to the file."""
_LOOK_BACK = 64 * 1024 * 1024  # a line longer than this is none of ours
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ESTALE}


class Jsonl(Sink):
    """Append each record to a file, as one line of JSON.

    A record is written as the bytes that the source sent; only a record that spans several lines is
    compacted. The file and its parent folders are created when they are missing, the file readable
    by its owner alone. Writers take turns by a lock on the file, and a file that was moved away is
    begun anew.

    Delivery:
        At least once; a repeated delivery repeats the line. A line that a crash left half-written is
        cut off by the next delivery, which writes that record again.
    Receipt:
        The byte offset at which the record's line begins.
    """

    name = "jsonl"
    delivery = "at least once: a repeated delivery repeats the line"

    def deliver(self, context: Context, records: Sequence[Event]) -> Sequence[Receipt]:
        """Append all records, or none."""
        lines = [_line(record.raw) for record in records]
        path = Path(self.arguments["path"]).expanduser()
        try:
            with _opened(path, context) as file:
                start = _repair(file, path, context)
                _append(file, b"".join(lines), start)
                if self.arguments.get("fsync", True):
                    os.fsync(file)
        except OSError as error:
            raise _explained(path, error) from error
        receipts = []
        for line in lines:
            receipts.append(Receipt(str(start)))
            start += len(line)
        return receipts


def _line(raw: bytes) -> bytes:
    if b"\n" not in raw and b"\r" not in raw:
        return raw + b"\n"
    try:
        return msgspec.json.format(raw, indent=-1) + b"\n"
    except msgspec.DecodeError as error:
        raise RejectedError(f"the record is not JSON, so it cannot be put on one line: {error}") from error


@contextmanager
def _opened(path: Path, context: Context) -> Iterator[int]:
    """The file, locked against other writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    file = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise BlockedError(f"{path} is not a regular file", hint="give the sink a `path` of its own")
        _lock(file, path, context)
        yield file
    finally:
        os.close(file)


def _lock(file: int, path: Path, context: Context) -> None:
    give_up = time.monotonic() + LOCK_WAIT
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > give_up:
                raise RetryableError(f"{path} is locked by another writer") from error
        if context.stop.wait(0.02):
            raise InterruptedWork(f"stopped while {path} was locked by another writer")


def _repair(file: int, path: Path, context: Context) -> int:
    """Where the next record begins, after a last line without an end was ended or cut off."""
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    tail = _last_line(file, size)
    try:
        orjson.loads(tail)
    except orjson.JSONDecodeError as error:
        if not tail.startswith(b"{"):
            raise BlockedError(
                f"{path} does not end in a line of JSON",
                hint="the file is not one that this sink wrote: give the sink a `path` of its own",
            ) from error
        context.log.warning("%s: cut off a half-written last line of %d bytes", path, len(tail))
        os.ftruncate(file, size - len(tail))
        return size - len(tail)
    _append(file, b"\n", size)
    return size + 1


def _last_line(file: int, size: int) -> bytes:
    """What stands behind the last line feed; empty when that is too long to be a record."""
    tail = b""
    while len(tail) < min(size, _LOOK_BACK):
        step = min(1024 * 1024, size - len(tail))
        block = os.pread(file, step, size - len(tail) - step)
        cut = block.rfind(b"\n")
        tail = block[cut + 1 :] + tail
        if cut >= 0:
            return tail
    return tail if len(tail) == size else b""


def _append(file: int, data: bytes, start: int) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError:
        os.ftruncate(file, start)  # the disk is full: what did fit would be half a delivery
        raise


def _explained(path: Path, error: OSError) -> WorkError:
    text = f"cannot write to {path}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RetryableError(text, hint="free some space; the records wait")
    if error.errno in _PASSING:
        return RetryableError(text)
    return BlockedError(text, hint="change the sink's `path`, or the rights on that folder; the records wait")
