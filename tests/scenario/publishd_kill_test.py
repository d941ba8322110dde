#!/usr/bin/env python3
"""kill -9 of publishd in mid-stream, ten times, while a 100k-route dump arrives: the BMP session stays, nothing is lost,
nothing is there twice, fold equals the source."""
import os
import signal
import subprocess
import sys
import time

from harness import Pipeline, binary, folded_equals, wait_for

KILLS = int(os.environ.get("ARANCINI_KILLS", "10"))


def main():
    with Pipeline(shards=2, settings={"supervise": {"backoff_max_s": 0.3}}) as pipeline:
        work = pipeline.dir
        dump, truth = os.path.join(work, "dump.bmp"), os.path.join(work, "truth.jsonl")
        pipeline.command(binary("bmpgen"), "--out", dump, "--peers", "4", "--prefixes", "25000", "--churn", "20000", "--seed",
                         "7", "--truth", truth, "--source", "127.0.0.1")
        # About 42,000 messages: slow enough that all kills fall into the stream.
        replay = subprocess.Popen([binary("bmpreplay"), "--to", pipeline.bmp, "--rate", "2000", "--hold", "600",
                                   dump], stdout=subprocess.DEVNULL)
        try:
            first = wait_for("the session is there", pipeline.routers)[0]
            killed = []
            for i in range(KILLS):
                seen = pipeline.audit()["records"]
                wait_for("more updates are published", lambda: pipeline.audit()["records"] > seen + 500, 60, 0.1)
                pid = pipeline.pid("publishd")
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                wait_for("a new publishd", lambda: pipeline.pid("publishd") not in (pid, 0), 30)
                assert replay.poll() is None, "the BMP session ended"
            folded_equals(pipeline, open(truth).read().splitlines(), 120)
            wait_for("the rings are drained", pipeline.drained, 30)
            audit = pipeline.audit()
            last = pipeline.routers()[0]
            assert len(set(killed)) == KILLS
            assert audit["gaps"] == 0 and audit["duplicates"] == 0, audit
            assert (last["port"], last["connected_ns"]) == (first["port"], first["connected_ns"]), (first, last)
            assert replay.poll() is None, "the BMP session ended"
            print(f"{KILLS} kills: {audit['records']} updates, gaps 0, duplicates 0; same session (port {last['port']}); "
                  "fold equals source")
        finally:
            replay.terminate()
            replay.wait()


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
