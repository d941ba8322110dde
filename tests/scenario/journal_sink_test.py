#!/usr/bin/env python3
"""[sink] kind = "journal": the whole pipeline without any broker. What the routers said is in the journal once and in order,
through kills of publishd, and reads like the stream of a pipeline that has one; damage and retention are said."""
import glob
import json
import os
import random
import signal
import subprocess

from harness import Load, Pipeline, binary, check_stream, wait_for

FLIP_AT = 300_000


def journal_of(pipeline):
    return os.path.join(pipeline.dir, "state", "journal")


def fold(pipeline, check=True):
    return pipeline.aranctl("fold", "--journal", journal_of(pipeline), "--json", check=check)


def audit(pipeline, check=True):
    return pipeline.aranctl("audit", "--journal", journal_of(pipeline), "--settle", "0", "--json", check=check)


def written(pipeline):
    return all(int(s["ring_used_bytes"]) == 0 for s in pipeline.status()["shards"])


def settled(pipeline, load):
    wait_for("all is read", lambda: pipeline.metric("arancini_ingest_received_bytes_total") >= sum(load.sent), 120, 0.2)
    wait_for("all is on the disk", lambda: written(pipeline), 60, 0.1)


def no_broker_at_all():
    with Pipeline(shards=2, args=["--sink", "journal"]) as pipeline:
        status = pipeline.status()
        assert status["sink"]["kind"] == "journal" and status["nats"]["state"] == "not used", status
        assert [p["name"] for p in status["processes"] if "nats" in p["name"]] == []
        assert not os.path.exists(os.path.join(pipeline.dir, "state", "nats"))
        follower = subprocess.Popen([binary("aranctl"), "tail", "--from-start", "--json", "--journal", journal_of(pipeline)],
                                    stdout=subprocess.PIPE, text=True)
        rng = random.Random(5)
        with Load(pipeline, routers=4, peers=2, prefixes=4000, churn=20000, rate=4 << 20) as load:
            wait_for("records", lambda: pipeline.metric("arancini_publish_updates_acked_total") > 10000, 60)
            for _ in range(8):
                dead = pipeline.pid("publishd")
                os.kill(dead, signal.SIGKILL)
                wait_for("another publishd", lambda: pipeline.pid("publishd") not in (0, dead), 30)
                # A random instant of its life, counted in what it has written.
                before = pipeline.metric("arancini_publish_journal_bytes")
                more = before + rng.randrange(1, 1 << 20)
                wait_for("it goes on", lambda: pipeline.metric("arancini_publish_journal_bytes") > more, 30, 0.01)
            load.finish()
            settled(pipeline, load)
            table = fold(pipeline).stdout
            assert table.splitlines() == load.truth, "fold of the journal is not what the routers have"
            checked = json.loads(audit(pipeline).stdout)
            assert checked["gaps"] == checked["duplicates"] == checked["order_violations"] == checked["damaged"] == 0, checked
            assert len(checked["writers"]) == 2
            # The follower saw each update once, in the order of each writer.
            last, count = {}, 0
            while count < checked["records"]:
                u = json.loads(follower.stdout.readline())
                assert u["sequence"] == last.get(u["shard"], 0) + 1, (u["shard"], u["sequence"], last)
                last[u["shard"]] = u["sequence"]
                count += 1
            follower.kill()
            follower.wait()
            truth = load.truth
        assert pipeline.stop() == 0
        # Nobody needs to be there.
        assert audit(pipeline).returncode == 0
        segments = sorted(glob.glob(os.path.join(journal_of(pipeline), "*", "*.seg")), key=os.path.getsize)
        with open(segments[-1], "r+b") as f:
            f.seek(FLIP_AT)
            byte = f.read(1)[0]
            f.seek(FLIP_AT)
            f.write(bytes([byte ^ 1]))
        bad = audit(pipeline, check=False)
        assert bad.returncode == 1 and segments[-1] in bad.stderr, (bad.returncode, bad.stderr)
        assert json.loads(bad.stdout)["damaged"] == 1 and json.loads(bad.stdout)["gaps"] > 0, bad.stdout
        bad = fold(pipeline, check=False)
        assert bad.returncode == 65 and segments[-1] in bad.stderr, (bad.returncode, bad.stderr)
        print(f"ok: {count} updates through 8 kills, {len(table.splitlines())} routes")
        return truth


def like_the_stream(truth):
    """The same load through a broker gives the same table."""
    with Pipeline(shards=2) as pipeline:
        with Load(pipeline, routers=4, peers=2, prefixes=4000, churn=20000, rate=0) as load:
            wait_for("churn", lambda: pipeline.metric("arancini_publish_updates_acked_total") > 4 * 2 * 4000 + 10000, 60)
            load.finish()
            check_stream(pipeline, load)
            assert pipeline.fold_text().splitlines() == truth
    print("ok: fold of the stream is the same")


def retention():
    settings = {"sink": {"kind": "journal"},
                "journal": {"segment_bytes": 8 << 20, "max_bytes": 16 << 20, "when_full": "discard-old"}}
    with Pipeline(shards=1, settings=settings) as pipeline:
        with Load(pipeline, routers=2, peers=2, prefixes=20000, churn=50000, rate=0) as load:
            wait_for("something is discarded", lambda: pipeline.log_lines("oldest segment was discarded"), 120, 0.2)
            load.finish()
            settled(pipeline, load)
        result = fold(pipeline, check=False)
        assert result.returncode == 3 and "the beginning of journal" in result.stderr, (result.returncode, result.stderr)
        result = audit(pipeline, check=False)
        assert result.returncode == 3, (result.returncode, result.stderr)
        assert json.loads(result.stdout)["gaps"] == 0, result.stdout
        # --config leads to the journal as well.
        path = os.path.join(pipeline.dir, "arancini.toml")
        with open(path, "a") as f:
            f.write(f'[paths]\nstate_dir = "{os.path.join(pipeline.dir, "state")}"\n')
        assert pipeline.aranctl("tail", "--config", path, "--count", "5", "--json").stdout.count("\n") == 5
    print("ok: retention is said")


def main():
    truth = no_broker_at_all()
    like_the_stream(truth)
    retention()


if __name__ == "__main__":
    main()
