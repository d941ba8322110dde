#!/usr/bin/env python3
"""ring.when_full = "drop-newest": while publishd stands still the ring fills, the routers are not held up, and in the end the
stream says what they have, without gaps; the events tell how much came late."""
import json
import os
import signal
import subprocess

from harness import Pipeline, binary, folded_equals, wait_for

SETTINGS = {"ring": {"when_full": "drop-newest", "size_bytes": 16 << 20}}


def events(pipeline):
    out = pipeline.aranctl("tail", "--nats", pipeline.nats, "--events", "--all", "--json").stdout
    return [json.loads(line) for line in out.splitlines()]


def main():
    with Pipeline(shards=1, settings=SETTINGS) as pipeline:
        truth = os.path.join(pipeline.dir, "truth.jsonl")
        publishd = pipeline.pid("publishd")
        os.kill(publishd, signal.SIGSTOP)
        generator = subprocess.Popen([binary("bmpgen"), "--to", pipeline.bmp, "--hold", "600", "--truth", truth, "--routers", "2",
                                      "--peers", "4", "--prefixes", "50000", "--churn", "200000"], stdout=subprocess.DEVNULL)
        try:
            # Everything is taken in although nobody reads the ring.
            wait_for("the routers have said everything", lambda: os.path.exists(truth), 120, 0.2)
            wait_for("changes are dropped", lambda: pipeline.metric("arancini_ingest_announcements_dropped_total") > 0)
            lines = open(truth).read().splitlines()
            wait_for("all is taken in", lambda: pipeline.metric("arancini_ingest_routes") == len(lines), 60)
            untold = pipeline.metric("arancini_ingest_routes_untold")
            assert untold > 0
            assert pipeline.metric("arancini_ingest_sessions_throttled") == 0
            os.kill(publishd, signal.SIGCONT)
            folded_equals(pipeline, lines, 120)
            wait_for("all is told", lambda: pipeline.metric("arancini_ingest_routes_untold") == 0)
            audit = pipeline.audit()
            assert audit["gaps"] == 0 and audit["duplicates"] == 0, audit
            wait_for("both routers are said to be told again",
                     lambda: sum(e["kind"] == "reconciled" for e in events(pipeline)) >= 2, 30, 0.5)
            seen = events(pipeline)
            for counter in ("announcements", "withdraws"):
                total = sum(e["counters"][counter] for e in seen if e["kind"] == "dropped")
                assert total == pipeline.metric(f"arancini_ingest_{counter}_dropped_total"), (counter, total)
            print(f"ok: {int(untold)} routes were not told in time, all are now; {len(seen)} events")
        finally:
            os.kill(publishd, signal.SIGCONT)
            generator.terminate()
            generator.wait()


if __name__ == "__main__":
    main()
