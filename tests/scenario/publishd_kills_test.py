#!/usr/bin/env python3
"""kill -9 of publishd at random instants while the routers send all that is taken, in both batched formats, some
kills together with the broker's: the BMP sessions stay, nothing is lost, nothing is there twice, fold equals the source.

ARANCINI_KILLS: how many (40); ARANCINI_SEED repeats a run."""
import os
import random
import signal
import sys
import time

from harness import Load, Pipeline, check_stream, wait_for
from nats_servers import NatsClient

LONG = bool(os.environ.get("ARANCINI_LONG"))
KILLS = int(os.environ.get("ARANCINI_KILLS", "1000" if LONG else "40"))
SEED = int(os.environ.get("ARANCINI_SEED", random.randrange(1 << 32)))
BROKER_TOO = 12  # every so many kills


def stream_last(pipeline):
    """Last sequence of the stream, None while the broker is away."""
    host, port = pipeline.nats.removeprefix("nats://").rsplit(":", 1)
    try:
        with NatsClient(host, int(port), 2) as c:
            return c.js("STREAM.INFO.ARANCINI_UPDATES", timeout=2)["state"]["last_seq"]
    except OSError:
        return None


def kills(form, count, rng):
    # 0.1 s: a life of publishd is about as long as what is in the rings.
    with Pipeline(shards=2, settings={"supervise": {"backoff_max_s": 0.1}}, args=("--format", form)) as pipeline:
        # Prefixes share attributes in the dump and not in the churn: both are at work most of the time.
        with Load(pipeline, routers=3, peers=2, prefixes=10000, churn=20000) as load:
            first = {r["address"]: (r["port"], r["connected_ns"]) for r in
                     wait_for("the sessions are there", lambda: len(pipeline.routers()) == 3 and pipeline.routers())}
            pids, busy, last, both = set(), 0, 0, 0
            for i in range(count):
                pid = wait_for("a publishd that was not killed", lambda: pipeline.pid("publishd") not in pids | {0} and
                               pipeline.pid("publishd"), 30, 0.01)
                time.sleep(rng.random() ** 2 * 0.4)  # the instant is by chance; nothing is waited for
                now = stream_last(pipeline)
                busy += now is not None and now > last
                last = now or last
                if i % BROKER_TOO == BROKER_TOO - 1:
                    os.kill(pipeline.pid("nats-server"), signal.SIGKILL)
                    both += 1
                    time.sleep(rng.random() * 0.1)
                os.kill(pid, signal.SIGKILL)
                pids.add(pid)
                load.alive()
            load.finish()
            records = check_stream(pipeline, load, 180)
            then = {r["address"]: (r["port"], r["connected_ns"]) for r in pipeline.routers()}
            assert then == first, (first, then)
            assert busy > count // 2, f"published between {busy} of {count} kills only"
            print(f"ok: {form}: {count} kills, {both} with the broker's, the stream grew before {busy} of them: {records} updates, "
                  "gaps 0, duplicates 0, same sessions, fold equals the source", flush=True)


if __name__ == "__main__":
    print(f"seed {SEED}", flush=True)
    start = time.monotonic()
    kills("update-v1-concat", KILLS // 2, random.Random(SEED))
    kills("batch-v2", KILLS - KILLS // 2, random.Random(SEED + 1))
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
