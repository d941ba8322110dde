#!/usr/bin/env python3
"""What else must not change the outcome: payload formats, an IPv6 listener, a broker that is killed or frozen while a dump
arrives, publishd stopped politely or doubled, and a storm of reconnects over all shards."""
import os
import signal
import socket
import subprocess

from harness import Pipeline, binary, folded_equals, wait_for

QUICK = {"supervise": {"backoff_max_s": 0.3}}


def truth_of(path):
    wait_for("the truth is written", lambda: os.path.exists(path), 60)
    return open(path).read().splitlines()


def generate(pipeline, *args):
    truth = os.path.join(pipeline.dir, "truth.jsonl")
    process = subprocess.Popen([binary("bmpgen"), "--to", pipeline.bmp, "--hold", "600", "--truth", truth, *args],
                               stdout=subprocess.DEVNULL)
    return process, truth


def clean(pipeline):
    audit = pipeline.audit()
    assert audit["gaps"] == 0 and audit["duplicates"] == 0, audit
    return audit["records"]


def formats():
    for name in ("update-v1", "batch-v2"):
        with Pipeline(shards=2, args=("--format", name)) as pipeline:
            process, truth = generate(pipeline, "--peers", "2", "--prefixes", "2000", "--churn", "2000")
            folded_equals(pipeline, truth_of(truth))
            records = clean(pipeline)
            process.terminate()
            process.wait()
            # The router is gone: after the grace time its routes are, too, and that in the same format.
            wait_for("all is withdrawn", lambda: pipeline.fold_text() == "", 30, 0.3)
            print(f"ok: {name}: {records} updates, fold equals the truth; all withdrawn after the router left")


def ipv6():
    with Pipeline(shards=2, bmp="[::1]:0") as pipeline:
        process, truth = generate(pipeline, "--source", "::1", "--prefixes", "1000", "--v6-percent", "50")
        lines = truth_of(truth)
        assert '"router":"::1"' in lines[0], lines[0]
        folded_equals(pipeline, lines)
        process.terminate()
        process.wait()
        print("ok: a router on IPv6")


def broker():
    with Pipeline(shards=2, settings=QUICK) as pipeline:
        process, truth = generate(pipeline, "--routers", "4", "--peers", "4", "--prefixes", "25000")
        for sig in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
            seen = pipeline.metric("arancini_publish_updates_acked_total")
            wait_for("more is acked", lambda: pipeline.metric("arancini_publish_updates_acked_total") > seen, 60)
            pid = pipeline.pid("nats-server")
            os.kill(pid, sig)
            if sig == signal.SIGSTOP:
                wait_for("a ring is nearly full, or all is read", lambda: any(
                    int(s["ring_used_bytes"]) > 0.8 * int(s["ring_capacity_bytes"]) for s in pipeline.status()["shards"]) or
                    pipeline.metric("arancini_ingest_received_bytes_total") == seen_bytes(pipeline), 60)
                os.kill(pid, signal.SIGCONT)
            else:
                wait_for("a new nats-server", lambda: pipeline.pid("nats-server") not in (0, pid), 30)
        folded_equals(pipeline, truth_of(truth), 180)
        records = clean(pipeline)
        assert process.poll() is None, "a BMP session ended"
        process.terminate()
        process.wait()
        print(f"ok: broker killed, frozen, killed: {records} updates, fold equals the truth")


def seen_bytes(pipeline, last={}):  # noqa: B006: remembers the last look
    now = pipeline.metric("arancini_ingest_received_bytes_total")
    before, last["bytes"] = last.get("bytes"), now
    return now if before == now else -1


def publishd():
    with Pipeline(shards=2, settings=QUICK) as pipeline:
        process, truth = generate(pipeline, "--peers", "4", "--prefixes", "25000", "--churn", "20000")
        args = [pipeline.nats if a == "embedded" else a for a in pipeline.args[1:]]
        second = subprocess.Popen([binary("publishd"), *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(3):
            pid = pipeline.pid("publishd")
            os.kill(pid, signal.SIGTERM)
            wait_for("a new publishd", lambda: pipeline.pid("publishd") not in (0, pid), 30)
        assert second.poll() is None, "the second publishd ended instead of waiting"
        second.kill()
        second.wait()
        wait_for("the supervisor's publishd has the rings", lambda: pipeline.drained() and
                 pipeline.metric("arancini_publish_rings_connected") == 2, 60)
        folded_equals(pipeline, truth_of(truth), 120)
        print(f"ok: publishd stopped three times, a second one beside it: {clean(pipeline)} updates")
        process.terminate()
        process.wait()


def storm():
    with Pipeline(shards=2) as pipeline:
        one = os.path.join(pipeline.dir, "one.bmp")
        pipeline.command(binary("bmpgen"), "--out", one, "--prefixes", "20", "--source", "127.0.0.1")
        data = open(one, "rb").read()
        routers = [f"127.0.3.{i + 1}" for i in range(40)]
        held = {}
        for round_ in range(5):
            for i, address in enumerate(routers):
                s = socket.create_connection(pipeline.bmp_address, source_address=(address, 0))
                # Some sessions end in the middle of a message, some are half open beside their successor.
                s.sendall(data if round_ == 4 else data[:len(data) - 37 * (i % 5)])
                if round_ < 4 and i % 3 == 0:
                    s.close()
                held.setdefault(address, []).append(s)
        want = {a: 20 for a in routers}

        def right():
            got = {}
            for r in pipeline.fold():
                got[r["router"]] = got.get(r["router"], 0) + 1
            return got == want
        wait_for("each router has its table", right, 60, 0.3)
        accepted = pipeline.metric("arancini_ingest_sessions_accepted_total")
        assert accepted == 200, accepted
        for sockets in held.values():
            for s in sockets[:-1]:
                s.close()
        clean(pipeline)
        assert right()
        print("ok: 200 sessions of 40 routers on two shards: each router has its table")


if __name__ == "__main__":
    formats()
    ipv6()
    broker()
    publishd()
    storm()
