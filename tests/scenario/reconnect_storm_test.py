#!/usr/bin/env python3
"""A thousand reconnects of two hundred routers on two shards: sessions end politely, by reset, in the middle of a message, or
stay half open beside their successors; source ports change each time, and some tables while nobody listens. Exactly one
owner at any time, the state follows the router, nobody is refused: the fold of the stream is what the routers have, and what
did not change was neither withdrawn nor announced again.

ARANCINI_SEED repeats a run."""
import collections
import os
import random
import sys
import time

from bmp_router import Router, StreamRules, clean_audit, folds_to_truth
from harness import Pipeline, wait_for

SEED = int(os.environ.get("ARANCINI_SEED", random.randrange(1 << 32)))
ROUTERS, RECONNECTS = 200, 1000
WAYS = ["close", "reset", "half open", "cut"]


def one_owner(pipeline, everywhere):
    """A router is in one shard's table, a peer's view is told by one."""
    rows = collections.Counter(r["address"] for r in pipeline.routers())
    assert all(n == 1 for n in rows.values()), [r for r, n in rows.items() if n > 1]
    assert not everywhere or len(rows) == ROUTERS, len(rows)
    views = collections.Counter((p["router"], p["address"], p["distinguisher"], p["view"]) for p in pipeline.peers())
    assert all(n == 1 for n in views.values()), [v for v, n in views.items() if n > 1]
    return True


def main():
    print(f"seed {SEED}", flush=True)
    rng = random.Random(SEED)
    # No table may be given up while its router is away for a moment, however slow the machine is.
    settings = {"curation": {"session_grace_s": 300.0, "resync_settle_s": 0.5, "resync_timeout_s": 20.0}}
    with Pipeline(shards=2, settings=settings) as pipeline:
        routers = [Router(f"127.0.{8 + i // 100}.{i % 100 + 1}", peers=2, prefixes=30, seed=SEED) for i in range(ROUTERS)]
        for r in routers:
            r.connect(pipeline.bmp_address)
            r.changes = 0
        folds_to_truth(pipeline, routers, 120)
        before = clean_audit(pipeline)
        ways = collections.Counter()
        start = time.monotonic()
        for i in range(RECONNECTS):
            r = rng.choice(routers)
            if r.socket is not None:
                way = rng.choice(WAYS)
                ways[way] += 1
                r.disconnect(way)
            if rng.random() < 0.2:
                r.change(4)  # nobody hears it
            r.connect(pipeline.bmp_address)
            if rng.random() < 0.2:
                r.change(4)
            if len(r.half_open) > 2:
                r.close_half_open()
            if i % 250 == 125:
                one_owner(pipeline, True)
        seconds = time.monotonic() - start

        def keep():
            for r in routers:
                if r.lost():  # it was asked to tell everything anew
                    r.connect(pipeline.bmp_address)
        folds_to_truth(pipeline, routers, 180, keep)
        # What is still half open ends now: nobody misses it.
        for r in routers:
            r.close_half_open()
        wait_for("one session for each router",
                 lambda: sum(r["sessions"] for r in pipeline.routers()) == ROUTERS and one_owner(pipeline, True), 60, 0.3)
        folds_to_truth(pipeline, routers, 60, keep)
        records = clean_audit(pipeline)
        changes = sum(r.changes for r in routers)
        assert records - before <= changes, f"{records - before} updates for {changes} changes"
        rules = StreamRules(pipeline).nothing_needless()
        assert rules.updates == records, (rules.updates, records)
        assert set(rules.reasons) <= {"none", "resync-missing", "resyncMissing"}, rules.reasons
        refused = pipeline.metric("arancini_ingest_sessions_refused_total")
        assert refused == 0, refused
        handed = pipeline.metric("arancini_ingest_sessions_handed_over_total")
        print(f"ok: {RECONNECTS} reconnects of {ROUTERS} routers in {seconds:.1f} s ({dict(ways)}), {handed:.0f} handed over: "
              f"{records - before} updates for {changes} changes of routes, none needless, {rules.reasons}")
        for r in routers:
            r.close()


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
