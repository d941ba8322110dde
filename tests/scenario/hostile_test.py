#!/usr/bin/env python3
"""Truncated, oversized, wrong-version and random input beside a good session: the bad session is closed or its message
skipped, with a counted and located error; the good session's table is right and nothing restarts."""
import os
import random
import socket
import struct
import subprocess
import sys

from harness import Pipeline, binary, folded_equals, wait_for


def good_message(kind=4, body=b""):
    return struct.pack(">BIB", 3, 6 + len(body), kind) + body


INITIATION = good_message(4, struct.pack(">HH", 2, 3) + b"bad")


def cases(rng):
    yield "wrong version", INITIATION + struct.pack(">BIB", 4, 100, 0) + bytes(94)
    yield "zero length", INITIATION + struct.pack(">BIB", 3, 0, 0)
    yield "length below the per-peer header", INITIATION + struct.pack(">BIB", 3, 20, 0) + bytes(14)
    yield "oversized", INITIATION + struct.pack(">BIB", 3, 0x7fffffff, 0) + bytes(5000)
    yield "unknown type", INITIATION + good_message(200, bytes(10))
    yield "truncated header", INITIATION + b"\x03\x00"
    yield "truncated message", INITIATION + struct.pack(">BIB", 3, 1000, 0) + bytes(100)
    yield "Route Monitoring full of zeros", INITIATION + good_message(0, bytes(42 + 100))
    yield "Peer Up full of ones", INITIATION + good_message(3, bytes(42) + b"\xff" * 200)
    yield "TLV overruns", good_message(4, struct.pack(">HH", 2, 60000) + b"x")
    for i in range(30):
        yield f"random bytes {i}", bytes(rng.getrandbits(8) for _ in range(rng.randrange(1, 3000)))
    for i in range(30):
        body = bytes(rng.getrandbits(8) for _ in range(rng.randrange(42, 800)))
        yield f"random body {i}", INITIATION + good_message(rng.randrange(0, 8), body)
    for i in range(40):  # a real UPDATE with flipped bits
        data = bytearray(SAMPLE)
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield f"flipped bits {i}", bytes(data)


SAMPLE = b""


def main():
    global SAMPLE
    seed = int(os.environ.get("ARANCINI_SEED", "1"))
    rng = random.Random(seed)
    print("seed", seed)
    with Pipeline(shards=2) as pipeline:
        sample = os.path.join(pipeline.dir, "sample.bmp")
        pipeline.command(binary("bmpgen"), "--out", sample, "--prefixes", "200", "--churn", "100", "--terminate")
        SAMPLE = open(sample, "rb").read()
        truth = os.path.join(pipeline.dir, "truth.jsonl")
        good = subprocess.Popen([binary("bmpgen"), "--to", pipeline.bmp, "--source", "127.0.9.1", "--peers", "2", "--prefixes",
                                 "5000", "--churn", "5000", "--hold", "600", "--truth", truth], stdout=subprocess.DEVNULL)
        try:
            wait_for("the good session", pipeline.routers)
            pids = {p["name"]: p["pid"] for p in pipeline.status()["processes"]}
            closed = 0
            for i, (name, data) in enumerate(cases(rng)):
                s = socket.create_connection(pipeline.bmp_address, source_address=(f"127.0.10.{i + 1}", 0))
                s.settimeout(10)
                try:
                    s.sendall(data)
                    if name in ("wrong version", "zero length", "length below the per-peer header", "oversized"):
                        assert s.recv(10) == b"", name
                        closed += 1
                except (ConnectionResetError, BrokenPipeError):
                    closed += 1
                except TimeoutError:
                    raise AssertionError(f"{name}: the session was not closed") from None
                s.close()
            wait_for("all bad sessions are over", lambda: pipeline.metric("arancini_ingest_sessions_open") == 1, 20)
            by = {r["address"]: r for r in pipeline.routers()}
            for address, words in (("127.0.10.1", "version"), ("127.0.10.4", "longer"), ("127.0.10.6", "within")):
                text = by[address]["last_error"]
                assert words in text and int(by[address]["last_error_code"]) > 0, (address, text)
                assert int(by[address]["malformed"]) == 1, by[address]
                assert any(c.isdigit() for c in text), f"not located: {text}"
            now = {p["name"]: p["pid"] for p in pipeline.status()["processes"]}
            assert now == pids, f"a process was restarted: {pids} -> {now}"
            wait_for("the truth is written", lambda: os.path.exists(truth), 60)
            expected = open(truth).read().splitlines()

            def right():
                return [x for x in pipeline.fold_text().splitlines() if '"router":"127.0.9.1"' in x] == expected
            wait_for("the good session's table is right", right, 60, 0.3)
            assert good.poll() is None, "the good session ended"
            assert pipeline.metric("arancini_ingest_messages_malformed_total") > 0
            audit = pipeline.audit()
            assert audit["gaps"] == 0 and audit["duplicates"] == 0, audit
            print(f"{i + 1} hostile sessions, {closed} closed by us; the good session's {len(expected)} routes are right")
        finally:
            good.terminate()
            good.wait()


if __name__ == "__main__":
    main()
