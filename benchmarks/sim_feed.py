"""How many blobs of 100 events the simulated audit feed serves in a second, from one process on one core.

    python benchmarks/sim_feed.py [--rounds 7] [--connections 4] [--pipeline 8] [--plain-http]
    python benchmarks/sim_feed.py --scale        start-up time and memory of a large tenant

The server is a process of its own on the first core, the client this process on the last one. The client is
kept cheap so that it is not the limit: a few keep-alive TLS connections, several requests in flight on each,
answers counted by their length and not decoded. One round asks for each blob for the first time (the events
are made while they are read), the others for blobs that the server still has.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from counterplay_sim.attach import ask
from counterplay_sim.simulator import FOLDER, INFO_FILE
from counterplay_sim.testing import SimulatorProcess, _wait

TYPES = ("Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General", "DLP.All")
SWITCHES = {"blob_events": 100, "blob_span": 86400, "page_size": 10000, "requests_per_minute": 10**9}


@contextmanager
def serving(folder: Path, core: int, *arguments: str) -> Iterator[SimulatorProcess]:
    """The simulator as a process that is bound to a core."""
    command = [sys.executable, "-m", "counterplay_sim", "--state-dir", str(folder), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    try:
        info = _wait(process, folder / FOLDER / INFO_FILE, 120)
        yield SimulatorProcess(process, folder, info)
    finally:
        process.terminate()
        process.wait(timeout=20)


def bearer(info: dict[str, Any]) -> str:
    """An `Authorization` header of the audit feed."""
    tenant = info["m365.tenant"]
    form = {
        "grant_type": "client_credentials",
        "client_id": tenant["client_id"],
        "client_secret": tenant["client_secret"],
        "scope": f"{tenant['activity_url']}/.default",
    }
    url = f"{tenant['authority']}/{tenant['tenant_id']}/oauth2/v2.0/token"
    answer = requests.post(url, data=form, verify=tenant["ca_file"], timeout=30)
    return f"Bearer {answer.json()['access_token']}"


def blobs(info: dict[str, Any], authorization: str) -> list[str]:
    """The paths of all full blobs."""
    tenant = info["m365.tenant"]
    feed = f"{tenant['activity_url']}/api/v1.0/{tenant['tenant_id']}/activity/feed/subscriptions"
    session = requests.Session()
    session.trust_env = False  # its CA bundle would win over the simulator's
    session.verify, session.headers["Authorization"] = tenant["ca_file"], authorization
    now = datetime.now(UTC)
    window = {
        "startTime": (now - timedelta(hours=23, minutes=59)).strftime("%Y-%m-%dT%H:%M:%S"),
        "endTime": now.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    paths = []
    for content_type in TYPES:
        session.post(f"{feed}/start", params={"contentType": content_type})
        listed = session.get(f"{feed}/content", params={"contentType": content_type, **window}).json()
        paths += [urlsplit(item["contentUri"]).path for item in listed[:-1]]  # the last is not full
    session.close()
    return paths


class Wire:
    """One connection with several requests in flight."""

    def __init__(self, url: str, ca_file: str, head: bytes) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        plain = socket.create_connection((parts.hostname, parts.port or 443))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: socket.socket = plain
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file)
            self._socket = context.wrap_socket(plain, server_hostname=parts.hostname)
        self._head = head
        self._room = memoryview(bytearray(1 << 20))

    def ask(self, paths: list[str]) -> None:
        """Send requests without waiting."""
        self._socket.sendall(b"".join(b"GET %b%b" % (path.encode(), self._head) for path in paths))

    def take(self, size: int) -> None:
        """Read so many bytes of answers."""
        while size:
            got = self._socket.recv_into(self._room, min(size, len(self._room)))
            assert got, "the server ended the connection"
            size -= got

    def measure(self, path: str) -> int:
        """The length of one whole answer."""
        self.ask([path])
        text = b""
        while b"\r\n\r\n" not in text:
            text += self._socket.recv(65536)
        head, _, body = text.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        self.take(length - len(body))
        return len(head) + 4 + length

    def close(self) -> None:
        self._socket.close()


def round_trip(wires: list[Wire], work: list[str], sizes: dict[str, int], pipeline: int) -> float:
    """Ask for every path once; blobs a second."""
    began = time.perf_counter()
    waiting: list[tuple[Wire, int]] = []
    position = 0
    while position < len(work) or waiting:
        if len(waiting) < len(wires) and position < len(work):
            wire = next(one for one in wires if one not in [busy for busy, _ in waiting])
            batch = work[position : position + pipeline]
            position += len(batch)
            wire.ask(batch)
            waiting.append((wire, sum(sizes[path] for path in batch)))
            continue
        wire, size = waiting.pop(0)
        wire.take(size)
    return len(work) / (time.perf_counter() - began)


def speed(options: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "switches.json"
        file.write_bytes(b'{"strictness": %b}' % str(SWITCHES).replace("'", '"').encode())
        arguments = ["--events", str(options.events), "--faults", str(file)]
        if options.plain_http:
            arguments.append("--plain-http")
        with serving(Path(folder), cores[0], *arguments) as running:
            os.sched_setaffinity(0, {cores[-1]})
            authorization = bearer(running.info)
            paths = blobs(running.info, authorization)
            wires = connect(running.info, authorization, 1)
            sizes = {path: wires[0].measure(path) for path in paths}
            wires[0].close()
        # the same tenant again, port and token included, but with nothing made yet
        with serving(Path(folder), cores[0], *arguments) as running:
            wires = connect(running.info, authorization, options.connections)
            for wire in wires:  # the first request of its kind goes the long way
                wire.measure(paths[0])
            cold = round_trip(wires, paths[1:], sizes, options.pipeline)
            work = (paths * (options.requests // len(paths) + 1))[: options.requests]
            rates, spent = [], []
            for _ in range(options.rounds):
                used = cpu(running.process.pid)
                rates.append(round_trip(wires, work, sizes, options.pipeline))
                spent.append((cpu(running.process.pid) - used) / len(work) * 1e6)
            for wire in wires:
                wire.close()
        size = statistics.mean(sizes.values())
        say(
            f"{len(paths)} blobs of 100 events, {size / 1000:.0f} kB each,"
            f" {'plain HTTP' if options.plain_http else 'TLS'}"
        )
        say(f"every blob for the first time, its events made meanwhile: {cold:,.0f} blobs/s")
        say(
            f"{options.rounds} rounds of {len(work)}: median {statistics.median(rates):,.0f} blobs/s,"
            f" {min(rates):,.0f} to {max(rates):,.0f};"
            f" median {statistics.median(spent):.0f} µs of CPU a request"
        )


def connect(info: dict[str, Any], authorization: str, count: int) -> list[Wire]:
    """Connections to the feed."""
    url = info["m365.tenant"]["activity_url"]
    host = urlsplit(url).netloc
    head = f" HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\r\n".encode()
    return [Wire(url, info["ca_file"], head) for _ in range(count)]


def cpu(pid: int) -> float:
    """The seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scale() -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--events", "1000000", "--users", "10000", "--rules", "50000")
        for when in ("a new tenant", "after a restart"):
            began = time.perf_counter()
            with serving(Path(folder), min(os.sched_getaffinity(0)), *arguments) as running:
                started = time.perf_counter() - began
                ask(running.info, "GET", "/info")
                say(f"{when}: serves after {started:.1f} s, {memory(running.process.pid)}")
                if when == "after a restart":
                    authorization = bearer(running.info)
                    began = time.perf_counter()
                    count = len(blobs(running.info, authorization))
                    say(f"listing the first {count:,} blobs: {time.perf_counter() - began:.1f} s")
                    tenant = running.info["m365.tenant"]
                    began = time.perf_counter()
                    report = ask(running.info, "GET", "/report")
                    say(
                        f"the oracle over {report['events']['offered']:,} events of {tenant['tenant_id']}:"
                        f" {time.perf_counter() - began:.1f} s, {memory(running.process.pid)}"
                    )


def memory(pid: int) -> str:
    """Present and highest resident memory."""
    found = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    now, peak = (int(found[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return f"{now:,.0f} MB resident, {peak:,.0f} MB at most"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--pipeline", type=int, default=8)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--plain-http", action="store_true")
    parser.add_argument("--scale", action="store_true")
    options = parser.parse_args()
    if options.scale:
        scale()
    else:
        speed(options)


if __name__ == "__main__":
    main()
