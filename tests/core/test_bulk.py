"""`Wire.bulk`: large bodies in large numbers, against a real server on loopback."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mmap import mmap
from typing import Any

import pytest

from counterplay import RetryableError
from counterplay import wire as wires
from counterplay.wire import Wire

SPILL = 64 * 1024
LARGE = bytes(range(256)) * 1024


class Handler(BaseHTTPRequestHandler):
    """Answers with the body that the path names, in the way that it names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        how, _, size = self.path.strip("/").partition("/")
        body = LARGE[: int(size)]
        self.send_response(200)
        if how == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 10_000):
                part = body[start : start + 10_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
            return
        if how == "gzip":
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:-5] if how == "cut" else body)
        self.close_connection = how == "cut"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(wires, "SPILL_BYTES", SPILL)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("how", ["plain", "chunked", "gzip"])
def test_a_large_body_lies_in_a_temporary_file(url: str, how: str) -> None:
    """Whether its size is said before, after or never: memory holds no more than the limit of it."""
    with Wire() as wire:
        large = wire.bulk("GET", f"{url}/{how}/{len(LARGE)}").body
        assert isinstance(large, mmap)
        assert bytes(large) == LARGE
        large.close()
        small = wire.bulk("GET", f"{url}/{how}/1000").body
    assert small == LARGE[:1000]


@pytest.mark.parametrize("size", [1000, len(LARGE)])
def test_a_body_that_is_cut_off_is_no_answer(url: str, size: int) -> None:
    """In memory and in a file: it is asked for again, and never taken for the whole."""
    with Wire(attempts=2, backoff=0.001) as wire, pytest.raises(RetryableError):
        wire.bulk("GET", f"{url}/cut/{size}")
