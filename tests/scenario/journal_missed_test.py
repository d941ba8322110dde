#!/usr/bin/env python3
"""publishd comes back without the journal that holds what it spilled: switched off, or the directory is not there. Nothing is
published past it; once it is there again everything is, in order. And from a broker to the journal as the sink and back,
with messages stored that were never acked: nothing twice."""
import json
import os
import signal
import sys
import tempfile
import time

from harness import Load, Pipeline, check_stream, wait_for
from nats_servers import NatsServer

MIB = 1 << 20
JOURNAL = "arancini_publish_journal_bytes"
ACKED = "arancini_publish_updates_acked_total"
MISSED = "went to the journal and are not there"


def settings_of(pipeline):
    return os.path.join(pipeline.dir, "arancini.toml")


def change(pipeline, key, value):
    """A line of the [journal] or [sink] table; publishd reads it when it starts again."""
    text = open(settings_of(pipeline)).read().splitlines()
    table, name = key.split(".")
    text = [x for x in text if not x.startswith(name + " = ")]
    if f"[{table}]" not in text:
        text.append(f"[{table}]")
    text.insert(text.index(f"[{table}]") + 1, f"{name} = {json.dumps(value)}")
    with open(settings_of(pipeline), "w") as f:
        f.write("\n".join(text) + "\n")


def kill_publishd(pipeline):
    pid = pipeline.pid("publishd")
    os.kill(pid, signal.SIGKILL)
    wait_for("a new publishd", lambda: pipeline.pid("publishd") not in (0, pid))


def backlog(pipeline, nats):
    wait_for("updates are acked", lambda: pipeline.metric(ACKED) > 10_000)
    nats.kill()
    wait_for("the journal takes what comes", lambda: pipeline.metric(JOURNAL) > 10 * MIB, 60)


def missed(pipeline, load, nats, undo):
    """With the journal gone and the broker back: an error, and not one update; with the journal: all."""
    nats.start()
    wait_for("the error", lambda: MISSED in "\n".join(pipeline.log_lines("publishd")), 30)
    wait_for("status says degraded", lambda: ("publishd", "degraded") in
             [(p["name"], p["state"]) for p in pipeline.status()["processes"]])
    undo()
    load.finish()
    return check_stream(pipeline, load)


def switched_off(pipeline, load, nats):
    backlog(pipeline, nats)
    change(pipeline, "journal.enabled", False)
    kill_publishd(pipeline)

    def undo():
        change(pipeline, "journal.enabled", True)
        kill_publishd(pipeline)
    return missed(pipeline, load, nats, undo)


def moved_away(pipeline, load, nats):
    backlog(pipeline, nats)
    pid = pipeline.pid("publishd")
    os.kill(pid, signal.SIGSTOP)  # it must not make the directory anew before it dies
    directory = os.path.join(pipeline.dir, "state", "journal")
    os.rename(directory, directory + ".away")
    kill_publishd(pipeline)

    def undo():
        # The new publishd has made a directory of its own.
        pid = pipeline.pid("publishd")
        os.kill(pid, signal.SIGSTOP)
        os.rename(directory, directory + ".new")
        os.rename(directory + ".away", directory)
        kill_publishd(pipeline)
    return missed(pipeline, load, nats, undo)


def sink_and_back(pipeline, load, nats):
    wait_for("updates are acked", lambda: pipeline.metric(ACKED) > 100_000)
    pid = pipeline.pid("publishd")
    nats.freeze()
    wait_for("messages are under way", lambda: pipeline.metric("arancini_publish_messages_in_flight") > 20)
    os.kill(pid, signal.SIGSTOP)
    before = None
    nats.thaw()
    wait_for("they are stored", lambda: nats.js("STREAM.INFO.ARANCINI_UPDATES")["state"]["last_seq"] > 0)
    while before != (before := nats.js("STREAM.INFO.ARANCINI_UPDATES")["state"]["last_seq"]):
        pass  # until the server has read what was sent
    change(pipeline, "sink.kind", "journal")
    kill_publishd(pipeline)
    wait_for("the journal is the sink", lambda: pipeline.metric(JOURNAL) > MIB)
    change(pipeline, "sink.kind", "nats")
    kill_publishd(pipeline)
    load.finish()
    return check_stream(pipeline, load)


def main():
    for case, spill_after in (switched_off, 0.1), (moved_away, 0.1), (sink_and_back, 5.0):
        with tempfile.TemporaryDirectory(prefix="arancini-nats-") as store, NatsServer(store) as nats:
            nats.start()
            with Pipeline(shards=1, nats=nats.url, settings={
                    "supervise": {"backoff_max_s": 0.3}, "journal": {"enabled": True, "spill_after_s": spill_after},
                    "sink": {"kind": "nats"}}) as pipeline:
                with Load(pipeline, routers=2, peers=2, prefixes=5000, churn=10000, rate=1_000_000) as load:
                    records = case(pipeline, load, nats)
                    print(f"ok: {case.__name__}: {records} updates, gaps 0, duplicates 0, fold equals the source", flush=True)


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
