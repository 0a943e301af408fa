"""The ordinary part of a tenant's audit log, made while it is read.

Nothing of it is stored: a log line is a time and a number, and the event of a number is one of a pool of
bodies with its own `CreationTime` and `Id`, always the same one. A tenant with up to `POOL` ordinary
events has as many different bodies; a larger one uses them again. An `Id` carries its event's number
under a key, so that an arrival is known without a table of all ids.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from counterplay_sim.clock import NANOSECONDS, from_ns, to_ns
from counterplay_sim.scenario import noise
from counterplay_sim.scenario.noise import CONTENT_TYPES, Scene

POOL = 20_000
NEWEST = timedelta(minutes=1)
_MEDIAN_LATENCY = 20 * 60.0  # seconds
_SPREAD = math.log(4.5) / 1.645  # so that the 95th percentile is at 90 minutes
_DELIVERED_TWICE = 0.015
_ESCAPED = 0.01
_RUSH = 0.9  # the share of events that one hour of a skewed tenant holds

_HEAD = b'{"CreationTime":"'
_NEXT = b"," + _HEAD
_MIDDLE = b'","Id":"'
_REST = len(_HEAD) + 19 + len(_MIDDLE) + 36
_IDS = slice(len(_HEAD) + 19 + len(_MIDDLE), _REST)
_RUN = 64  # events whose ids share all but the first eight digits
_ODD = 0x9E3779B1
_ODD_INVERSE = pow(_ODD, -1, 1 << 32)
_MIX = (0x5851F42D4C95 | 1, 0x14057B7EF767 | 1)
_MIX_INVERSE = tuple(pow(factor, -1, 1 << 48) for factor in _MIX)
_MASK = (1 << 48) - 1
_SECONDS = tuple(b"%02d" % second for second in range(60))


def latency(chance: random.Random, spread: float = _SPREAD) -> float:
    """Seconds from an event to its ingestion: 20 minutes in the middle, sometimes hours."""
    return chance.lognormvariate(math.log(_MEDIAN_LATENCY), spread)


def encode(event: dict[str, object], *, escaped: bool = False) -> bytes:
    """An event as the service writes it: compact, with or without escapes for what is not ASCII."""
    return json.dumps(event, ensure_ascii=escaped, separators=(",", ":")).encode("utf-8", "surrogatepass")


class Ids:
    """Event ids of one tenant: GUIDs that only this key reads back."""

    def __init__(self, seed: str) -> None:
        self._key = hashlib.blake2b(seed.encode(), digest_size=16).digest()
        self._mask = int.from_bytes(self._key[:6], "big")

    def of(self, feed: int, number: int) -> bytes:
        """The id of an event, as it stands in its JSON."""
        run, place = divmod(number, _RUN)
        base, tail = self.run(feed, run)
        return b"%08x%b" % ((base + place * _ODD) & 0xFFFFFFFF, tail)

    @lru_cache(maxsize=4096)  # noqa: B019  # lives as long as the tenant, and so does this object
    def run(self, feed: int, run: int) -> tuple[int, bytes]:
        """Where the first digits of a run of ids begin, and all the other digits."""
        mixed = self._scramble(run * 8 + feed)
        check, base = self._check(mixed)
        one, two, three = check >> 26 & 0xFFFF, check >> 14 & 0xFFF, check & 0x3FFF | 0x8000
        return base, b"-%04x-4%03x-%04x-%012x" % (one, two, three, mixed)

    def read(self, key: str) -> tuple[int, int] | None:
        """The feed and number of an id, or None when it is none of this tenant's."""
        try:
            mixed, first = int(key[24:], 16), int(key[:8], 16)
        except ValueError:
            return None
        run, feed = divmod(self._unscramble(mixed & _MASK), 8)
        base, tail = self.run(feed, run)
        place = (first - base) * _ODD_INVERSE & 0xFFFFFFFF
        if place >= _RUN or key[8:].encode("latin-1", "replace") != tail:
            return None
        return feed, run * _RUN + place

    def _check(self, mixed: int) -> tuple[int, int]:
        digest = hashlib.blake2b(mixed.to_bytes(6, "big"), digest_size=12, key=self._key).digest()
        check, base = struct.unpack(">QI", digest)
        return check, base

    def _scramble(self, value: int) -> int:
        value ^= self._mask
        for factor in _MIX:
            value = value * factor & _MASK
            value ^= value >> 24
        return value

    def _unscramble(self, value: int) -> int:
        for factor in reversed(_MIX_INVERSE):
            value ^= value >> 24
            value = value * factor & _MASK
        return value ^ self._mask


class Background:
    """The ordinary events of one content type: `times` of the log's lines and the event `numbers` on them.

    Lines are in order of time and no two have the same. An event delivered twice has two lines.
    """

    def __init__(
        self, content_type: str, ids: Ids, own: array[int], rests: list[bytes], late: list[int]
    ) -> None:
        self.content_type = content_type
        self._feed = CONTENT_TYPES.index(content_type)
        self._ids = ids
        self._own = own  # of each event: when it was first taken in (ns)
        self._rests = rests  # of each body: everything after the id
        self._late = late  # of each body: from the event to its ingestion (ns)
        self._minutes: dict[int, bytes] = {}
        self.times: array[int] = array("q")
        self.numbers: array[int] = array("I")

    def __len__(self) -> int:
        return len(self._own)

    def key(self, number: int) -> str:
        """The `Id` of an event."""
        return self._ids.of(self._feed, number).decode()

    def body(self, number: int) -> bytes:
        """An event's JSON."""
        return b"".join(self.parts(number))

    def parts(self, number: int) -> tuple[bytes, ...]:
        """The same in pieces, for whoever joins many."""
        kind = number % len(self._rests)
        second = (self._own[number] - self._late[kind]) // NANOSECONDS
        minute, rest = divmod(second, 60)
        text = self._minutes.get(minute)
        if text is None:
            text = self._minute(minute)
        run, place = divmod(number, _RUN)
        base, tail = self._ids.run(self._feed, run)
        return (
            _HEAD,
            text,
            _SECONDS[rest],
            _MIDDLE,
            b"%08x" % ((base + place * _ODD) & 0xFFFFFFFF),
            tail,
            self._rests[kind],
        )

    def write(self, numbers: Sequence[int], pieces: list[bytes]) -> None:
        """Add the pieces of many events, each after a comma: `parts` without a call an event."""
        own, late, rests, minutes = self._own, self._late, self._rests, self._minutes
        kinds, run_of, feed, last = len(rests), self._ids.run, self._feed, -1
        base, tail = 0, b""
        for number in numbers:
            kind = number % kinds
            minute, second = divmod((own[number] - late[kind]) // NANOSECONDS, 60)
            run, place = divmod(number, _RUN)
            if run != last:
                (base, tail), last = run_of(feed, run), run
            pieces += (
                _NEXT,
                minutes.get(minute) or self._minute(minute),
                _SECONDS[second],
                _MIDDLE,
                b"%08x" % ((base + place * _ODD) & 0xFFFFFFFF),
                tail,
                rests[kind],
            )

    def _minute(self, minute: int) -> bytes:
        text = from_ns(minute * 60 * NANOSECONDS).strftime("%Y-%m-%dT%H:%M:").encode()
        self._minutes[minute] = text
        return text


def key_of(body: bytes) -> str | None:
    """The `Id` of an event that is laid out as this simulator does, without decoding it."""
    if body.startswith(_HEAD) and body[_IDS.start - len(_MIDDLE) : _IDS.start] == _MIDDLE:
        return body[_IDS].decode("latin-1")
    return None


def backgrounds(
    scene: Scene, ids: Ids, created: datetime, count: int, hours: float, *, skewed: bool
) -> dict[str, Background]:
    """A day (or so many hours) of ordinary events before `created`, by content type."""
    start = to_ns(created - timedelta(hours=hours))
    span = to_ns(created - NEWEST) - start
    warp = _rush(scene.chance) if skewed else _even
    made = {}
    for content_type, number in _shares(count).items():
        own = _own_times(scene.chance, number, start, span, warp)
        rests, late = _pool(
            scene, content_type, own, max(1, min(number, POOL * number // max(count, 1) or 1))
        )
        background = Background(content_type, ids, own, rests, late)
        _deliver(scene.chance, background, own, start + span)
        made[content_type] = background
    return made


def _shares(count: int) -> dict[str, int]:
    """How many of so many events each content type has; the largest takes what rounding leaves."""
    total = sum(share for _, share, _ in noise.KINDS)
    found = dict.fromkeys(CONTENT_TYPES, 0)
    weight = {name: sum(s for kind, s, _ in noise.KINDS if kind == name) for name in CONTENT_TYPES}
    for name in CONTENT_TYPES:
        found[name] = int(count * weight[name] / total)
    found[noise.EXCHANGE] += count - sum(found.values())
    return found


def _even(share: float) -> float:
    return share


def _rush(chance: random.Random) -> Callable[[float], float]:
    """Most of the day within a twenty-fourth of it."""
    begin, width = chance.uniform(0.3, 0.6), 1 / 24
    before = (1 - _RUSH) * begin

    def warp(share: float) -> float:
        if share < before:
            return share / before * begin
        if share < before + _RUSH:
            return begin + (share - before) / _RUSH * width
        rest = 1 - before - _RUSH
        return begin + width + (share - before - _RUSH) / rest * (1 - begin - width)

    return warp


def _own_times(
    chance: random.Random, count: int, start: int, span: int, warp: Callable[[float], float]
) -> array[int]:
    times = array("q")
    draw = chance.random
    if warp is _even:
        step = span / max(count, 1)
        times.extend(start + int((number + draw()) * step) for number in range(count))
    else:
        times.extend(start + int(warp((number + draw()) / count) * span) for number in range(count))
    return times


def _pool(scene: Scene, content_type: str, own: array[int], size: int) -> tuple[list[bytes], list[int]]:
    """So many bodies without time and id, and the latency of each."""
    chance = scene.chance
    writers = [(share, write) for kind, share, write in noise.KINDS if kind == content_type]
    weights = [share for share, _ in writers]
    rests: list[bytes] = []
    late: list[int] = []
    for number in range(min(size, len(own))):
        waited = int(latency(chance) * NANOSECONDS)
        (_, write), *_ = chance.choices(writers, weights=weights)
        person = (
            scene.people[number % len(scene.people)] if chance.random() < 0.5 else chance.choice(scene.people)
        )
        event = write(scene, person, from_ns(own[number] - waited))
        body = encode(event, escaped=chance.random() < _ESCAPED)  # some writers escape what is not ASCII
        rests.append(body[_REST:])
        late.append(waited)
    return rests, late


def _deliver(chance: random.Random, background: Background, own: array[int], newest: int) -> None:
    """Put the events on the log's lines; the service retries within itself, so some are on two."""
    twice = sorted(
        (min(own[number] + int(chance.uniform(60, 6 * 3600) * NANOSECONDS), newest), number)
        for number in _some(chance, len(own), _DELIVERED_TWICE)
    )
    times, numbers = background.times, background.numbers
    done = 0
    for at, number in twice:
        until = bisect_left(own, at, done)
        times.extend(own[done:until])
        numbers.extend(range(done, until))
        times.append(at)
        numbers.append(number)
        done = until
    times.extend(own[done:])
    numbers.extend(range(done, len(own)))
    for place in range(1, len(times)):
        if times[place] <= times[place - 1]:
            times[place] = times[place - 1] + 1


def _some(chance: random.Random, count: int, share: float) -> Iterator[int]:
    """Numbers below `count`, each with that probability, without looking at every one."""
    number = -1
    while True:
        number += 1 + int(math.log(1.0 - chance.random()) / math.log(1.0 - share))
        if number >= count:
            return
        yield number
