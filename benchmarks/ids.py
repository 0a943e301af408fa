"""What remembering event ids costs: `python benchmarks/ids.py [--ids N]`.

Ids come as from a tenant with 600,000 events an hour (100 million a week): 100 a unit, spread over the
hours before it as the audit log's latency spreads them, 1.5 % of them repeated. Prints CPU per id, the
size on disk, the memory of the tables, and how often an hour had to be read back.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from counterplay.events import Unit
from counterplay.store.database import open_database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.key_claims import UnitKeys

PER_UNIT, PER_GROUP, PER_HOUR = 100, 10, 600_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=10_000_000)
    count = parser.parse_args().ids
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ids.db"
        database = open_database(f"sqlite:///{file}")
        feeds = FeedStore(database)
        start = datetime(2026, 3, 2, tzinfo=UTC)
        feed_id = feeds.subscribe(FeedKey("t", "c", "x", "{}"), "p", start).feed_id
        spent, made, hour = 0.0, 0, 500_000
        known: list[tuple[str, int]] = []
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while made < count:
            moment = start + timedelta(hours=made / PER_HOUR)
            listed = [Unit(f"u{made + place}", created=moment) for place in range(PER_GROUP)]
            feeds.record_listing(feed_id, moment, listed)
            with database.read() as connection:
                last = int(connection.exec_driver_sql("SELECT max(id) FROM cp_unit").scalar_one())
            now = hour + made // PER_HOUR
            batch = []
            for unit_id in range(last - PER_GROUP + 1, last + 1):
                events = [
                    (f"{chance.getrandbits(128):032x}", now - int(chance.lognormvariate(-1.1, 0.92)))
                    for _ in range(PER_UNIT)
                ]
                if known and chance.random() < 0.9:
                    events[:2] = chance.sample(known, min(2, len(known)))
                known = [*known[-2000:], *events[5:8]]
                ids = [f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}" for one, _ in events]
                batch.append(
                    UnitKeys(unit_id, ids, range(PER_UNIT), [at for _, at in events], [7] * PER_UNIT)
                )
            began = time.process_time()
            with database.write() as connection:
                feeds.keys.claim(connection, feed_id, batch)
            spent += time.process_time() - began
            made += PER_UNIT * PER_GROUP
            if made % 1_000_000 == 0:
                disk = sum(os.path.getsize(one) for one in Path(folder).iterdir())
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
                click.echo(
                    f"{made / 1e6:.0f} million: {spent / made * 1e6:.2f} us an id (with its transaction), "
                    f"tables {feeds.keys.size / 1e6:.1f} MB, process +{grown:.0f} MB, "
                    f"disk {disk / made:.0f} bytes an id (ledger rows included)"
                )
        database.close()


if __name__ == "__main__":
    main()
