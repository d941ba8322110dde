#!/usr/bin/env python3
"""Everything dies at random, for a minute: kill -9 of ingestd, publishd, curated and nats-server, also together, while routers churn,
flap and reconnect. When it is over, the fold of the stream is what the routers have, without a gap, a duplicate or anything told
needlessly.

ARANCINI_CHAOS_S: for how long (60; 600 with ARANCINI_LONG=1); ARANCINI_SEED repeats a run's choices."""
import collections
import os
import random
import signal
import subprocess
import sys
import time

from bmp_router import Churn, Router, StreamRules, clean_audit, folds_to_truth
from harness import Pipeline, binary, needs_metric, wait_for

LONG = bool(os.environ.get("ARANCINI_LONG"))
SECONDS = float(os.environ.get("ARANCINI_CHAOS_S", "600" if LONG else "60"))
SEED = int(os.environ.get("ARANCINI_SEED", random.randrange(1 << 32)))
SHARDS, ROUTERS = 2, 10
SETTINGS = {"supervise": {"backoff_max_s": 0.3}, "snapshot": {"interval_s": 2.0},
            "curation": {"session_grace_s": 120.0, "resync_settle_s": 0.5, "resync_timeout_s": 30.0}}


def processes(pipeline):
    """{name of the program and shard: pid} of what a curated started or adopted."""
    out = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as f:
                words = f.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        name = os.path.basename(words[0])
        if name == "nats-server" and any(w.startswith(pipeline.dir) for w in words):
            out[name] = int(entry)
        elif name in ("ingestd", "publishd") and pipeline.run_dir in words:
            if "--shard" in words:
                name += "@" + words[words.index("--shard") + 1]
            out[name] = int(entry)
    return out


class Monkey:
    """Kills what a pipeline consists of."""

    def __init__(self, pipeline, rng):
        self.pipeline, self.rng = pipeline, rng
        self.kills = collections.Counter()

    def kill(self, pid, name):
        try:
            os.kill(pid, signal.SIGKILL)
            self.kills[name.split("@")[0]] += 1
        except ProcessLookupError:
            pass

    def curated(self):
        """What it started lives on and is adopted by the next one; as systemd would, start that."""
        p = self.pipeline
        self.kill(p.process.pid, "curated")
        p.process.wait()
        p.log.close()
        port = p.bmp.rsplit(":", 1)[1]
        p.args[p.args.index("--bmp-listen") + 1] = f"127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                p.start()
                return
            except AssertionError:  # a child that dies slowly still has the port
                if time.monotonic() > deadline:
                    raise
                p.process.wait()
                time.sleep(0.2)

    def act(self):
        there = processes(self.pipeline)
        if self.rng.random() < 0.08:
            self.curated()
            return
        if not there:
            return
        victims = self.rng.sample(sorted(there), min(len(there), self.rng.choice([1, 1, 1, 2, 3, 5])))
        for name in victims:
            self.kill(there[name], name)


def main():
    print(f"seed {SEED}", flush=True)
    rng = random.Random(SEED)
    with Pipeline(shards=SHARDS, settings=SETTINGS) as pipeline:
        routers = [Router(f"127.0.12.{i + 1}", peers=2, prefixes=400, seed=SEED) for i in range(ROUTERS)]
        for r in routers:
            r.connect(pipeline.bmp_address)
        folds_to_truth(pipeline, routers, 60)
        churn = Churn(routers, lambda: pipeline.bmp_address)
        monkey = Monkey(pipeline, rng)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(rng.random() ** 2 * 3)  # the instant is by chance; nothing is waited for
            monkey.act()
        churn.finish(120)
        wait_for("all processes are there", lambda: len(processes(pipeline)) == SHARDS + 2, 60)
        folds_to_truth(pipeline, routers, 240, churn.keep_connected)
        wait_for("all is drained", pipeline.drained, 60)
        records = clean_audit(pipeline)
        # The operator's own words, and exit status.
        audit = subprocess.run([binary("aranctl"), "audit", "--nats", pipeline.nats, "--json"], capture_output=True, text=True)
        assert audit.returncode == 0, audit.stdout
        rules = StreamRules(pipeline).nothing_needless()
        changes = sum(r.changes for r in routers)
        kills = sum(monkey.kills.values())
        assert kills >= SECONDS / 5, monkey.kills
        print(f"ok: {kills} kills in {SECONDS:.0f} s ({dict(monkey.kills)}), {sum(r.reconnects for r in routers)} sessions, {changes} "
              f"changes of routes: {records} updates, gaps 0, duplicates 0, none needless ({rules.reasons}), fold equals the source")
        for r in routers:
            r.close()


if __name__ == "__main__":
    needs_metric("arancini_ingest_restore_state")
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
