#!/usr/bin/env python3
"""Tables after ingestd was killed, stopped, moved to other shards, or lost its machine: what consumers were told is known again, so
that a withdraw that nobody saw reaches the stream, and nothing that did not change is told twice. One function a case;
arguments name those to run (all)."""
import glob
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

from bmp_router import Churn, Router, StreamRules, clean_audit, folds_to_truth
from harness import Pipeline, needs_metric, wait_for
from nats_servers import NatsServer

SEED = int(os.environ.get("ARANCINI_SEED", random.randrange(1 << 32)))
SETTINGS = {"supervise": {"backoff_max_s": 0.3},
            "curation": {"session_grace_s": 60.0, "resync_settle_s": 0.5, "resync_timeout_s": 30.0}}
KILLS = 20 if os.environ.get("ARANCINI_LONG") else 6


def pipeline_of(**more):
    settings = {k: dict(v) for k, v in SETTINGS.items()}
    for table, keys in more.pop("settings", {}).items():
        settings.setdefault(table, {}).update(keys)
    return Pipeline(settings=settings, **more)


def some_routers(number=6, prefixes=300):
    return [Router(f"127.0.11.{i + 1}", peers=2, prefixes=prefixes, seed=SEED) for i in range(number)]


def connect_all(pipeline, routers):
    for r in routers:
        r.connect(pipeline.bmp_address)


class KeepConnected:
    """For folds_to_truth(): who is asked to tell everything anew, or whose collector is gone, connects again."""

    def __init__(self, pipeline, routers):
        self.pipeline, self.routers = pipeline, routers

    def __call__(self):
        for r in self.routers:
            r.close_half_open()
            if r.lost():
                r.connect(self.pipeline.bmp_address)


def told(pipeline, routers, seconds=90):
    """The fold is the truth; returns the number of updates so far."""
    folds_to_truth(pipeline, routers, seconds, KeepConnected(pipeline, routers))
    wait_for("all is drained", pipeline.drained, 60)
    return clean_audit(pipeline)


def snapshot(pipeline):
    return pipeline.aranctl("snapshot", timeout=60)


def snapshot_files(pipeline):
    folder = os.path.join(pipeline.dir, "state", "snapshots")
    return [f for f in glob.glob(os.path.join(folder, "**", "*"), recursive=True)
            if os.path.isfile(f) and not f.endswith((".corrupt", ".tmp"))]


def kill_shards(pipeline, numbers=(0, 1), wait=True):
    dead = {}
    for n in numbers:
        dead[n] = pipeline.pid(f"ingestd@{n}")
        os.kill(dead[n], signal.SIGKILL)
    if wait:
        for n in numbers:
            wait_for(f"a new ingestd@{n}", lambda: pipeline.pid(f"ingestd@{n}") not in (0, dead[n]), 30)  # noqa: B023


def restart(pipeline, shards=None):
    """The whole pipeline, politely; perhaps with other shards."""
    pipeline.stop()
    if shards:
        pipeline.args[pipeline.args.index("--shards") + 1] = str(shards)
    pipeline.start()


def reasons_since(pipeline, before):
    """{reason: updates} of what came behind the first `before` updates of the stream."""
    text = pipeline.aranctl("tail", "--nats", pipeline.nats, "--all", "--json", timeout=300).stdout
    out = {}
    for line in text.splitlines()[before:]:
        u = json.loads(line)
        key = ("announce" if u["announced"] else "withdraw", u.get("reason", "none"))
        out[key] = out.get(key, 0) + 1
    return out


def withdraw_while_down():
    """Routes that went, came and changed while ingestd was dead."""
    with pipeline_of(shards=2) as pipeline:
        routers = some_routers()
        connect_all(pipeline, routers)
        before = told(pipeline, routers)
        kill_shards(pipeline, wait=False)
        gone = came = 0
        for r in routers:
            r.disconnect("reset")
            gone += len(r.withdraw(40))
            came += len(r.announce(10, peer=1))
        connect_all(pipeline, routers)  # the listener lives on
        after = told(pipeline, routers)
        reasons = reasons_since(pipeline, before)
        assert reasons == {("withdraw", "resyncMissing"): gone, ("announce", "none"): came}, (reasons, gone, came)
        assert after - before == gone + came
        StreamRules(pipeline).nothing_needless()
        for r in routers:
            r.close()
        print(f"ok: {gone} withdraws and {came} announcements while ingestd was down are told, and nothing else", flush=True)


def between_snapshot_and_crash():
    """What was told behind the snapshot comes from the log."""
    with pipeline_of(shards=2) as pipeline:
        routers = some_routers()
        connect_all(pipeline, routers)
        told(pipeline, routers)
        snapshot(pipeline)
        for r in routers:
            r.withdraw(30)
            r.announce(20)
            r.change(40)
        before = told(pipeline, routers)
        kill_shards(pipeline)
        assert told(pipeline, routers) == before, reasons_since(pipeline, before)
        # And what goes while it is down, known from the log alone.
        kill_shards(pipeline, wait=False)
        gone = 0
        for r in routers:
            r.disconnect("close")
            gone += len(r.withdraw(15))
        connect_all(pipeline, routers)
        assert told(pipeline, routers) == before + gone
        StreamRules(pipeline).nothing_needless()
        for r in routers:
            r.close()
        print("ok: what was told between snapshot and crash is known: nothing is told again, and what goes is withdrawn",
              flush=True)


def random_kills():
    """kill -9 at random instants under churn, snapshots between."""
    rng = random.Random(SEED)
    with pipeline_of(shards=2, settings={"snapshot": {"interval_s": 1.0}}) as pipeline:
        routers = some_routers(8)
        connect_all(pipeline, routers)
        churn = Churn(routers, lambda: pipeline.bmp_address)
        for _ in range(KILLS):
            time.sleep(rng.random() * 2)  # the instant is by chance; nothing is waited for
            kill_shards(pipeline, [rng.randrange(2)])
        churn.finish()
        told(pipeline, routers, 120)
        rules = StreamRules(pipeline).nothing_needless()
        for r in routers:
            r.close()
        print(f"ok: {KILLS} kills of ingestd at random instants: fold equals the truth, nothing needless in {rules.updates} updates, "
              f"{rules.reasons}", flush=True)


def other_shards():
    """1 -> 2 -> 4 -> 1: the same table, and nothing is told that did not change."""
    with pipeline_of(shards=1) as pipeline:
        routers = some_routers(10)
        connect_all(pipeline, routers)
        before = told(pipeline, routers)
        for number, shards in enumerate((2, 4, 1)):
            if number == 1:
                snapshot(pipeline)
            restart(pipeline, shards)
            connect_all(pipeline, routers)
            after = told(pipeline, routers)
            assert after == before, (shards, after - before, reasons_since(pipeline, before))
            # Not once a router is back is it known that the tables were there: what is missing now is withdrawn.
            gone = sum(len(r.withdraw(7)) for r in routers)
            before = told(pipeline, routers)
            assert before == after + gone
        # A route that went during the move.
        pipeline.stop()
        gone = 0
        for r in routers:
            r.disconnect("close")
            gone += len(r.withdraw(9))
        pipeline.args[pipeline.args.index("--shards") + 1] = "3"
        pipeline.start()
        connect_all(pipeline, routers)
        assert told(pipeline, routers) == before + gone
        StreamRules(pipeline).nothing_needless()
        for r in routers:
            r.close()
        print("ok: 1, 2, 4, 1, 3 shards: the same table, nothing told again, withdraws during the move are told", flush=True)


def restore_texts(pipeline):
    return " | ".join(str(s.get("restore", "")) + str(s.get("restore_text", "")) for s in pipeline.status()["shards"])


def broker_away(lose_snapshots):
    """The whole collector starts without its broker. With a snapshot and all that follows it in ring and journal, the tables are
    restored at once; without, the routers wait until the log can be read, and that is said."""
    folder = tempfile.mkdtemp(prefix="arancini-broker-")
    with NatsServer(folder) as nats:
        nats.start()
        with pipeline_of(shards=2, nats=nats.url, read_from=nats.url) as pipeline:
            routers = some_routers()
            connect_all(pipeline, routers)
            told(pipeline, routers)
            snapshot(pipeline)
            for r in routers:
                r.change(30)
            before = told(pipeline, routers)
            nats.kill()
            pipeline.stop()
            if lose_snapshots:
                shutil.rmtree(os.path.join(pipeline.dir, "state", "snapshots"), ignore_errors=True)
            gone = 0
            for r in routers:
                r.disconnect("close")
                gone += len(r.withdraw(11))
            pipeline.start()
            connect_all(pipeline, routers)
            if lose_snapshots:
                wait_for("it is said that the restore waits", lambda: "804" in pipeline.log_text() or any(
                    s.get("restoring") for s in pipeline.status()["shards"]), 30)
                wait_for("the sessions are there", lambda: len(pipeline.routers()) == len(routers), 30)
                assert pipeline.metric("arancini_ingest_updates_announced_total") == 0
                assert pipeline.metric("arancini_ingest_updates_withdrawn_total") == 0
            nats.start()
            assert told(pipeline, routers, 120) == before + gone, reasons_since(pipeline, before)
            StreamRules(pipeline).nothing_needless()
            for r in routers:
                r.close()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"ok: the broker was away at start, {'no snapshots' if lose_snapshots else 'with snapshots'}: nothing told again, "
          f"{gone} withdraws told", flush=True)


def broker_away_with_snapshots():
    broker_away(False)


def broker_away_without():
    broker_away(True)


def corrupt_snapshot():
    """It is set aside and named, never loaded; the log restores everything."""
    with pipeline_of(shards=2) as pipeline:
        routers = some_routers()
        connect_all(pipeline, routers)
        told(pipeline, routers)
        snapshot(pipeline)
        for r in routers:
            r.change(30)
        before = told(pipeline, routers)
        pipeline.stop()
        files = snapshot_files(pipeline)
        assert files, "no snapshots"
        for path in files:
            with open(path, "r+b") as f:
                f.seek(os.path.getsize(path) // 2)
                byte = f.read(1)
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte[0] ^ 4]))
        gone = 0
        for r in routers:
            r.disconnect("close")
            gone += len(r.withdraw(13))
        pipeline.start()
        connect_all(pipeline, routers)
        assert told(pipeline, routers) == before + gone, reasons_since(pipeline, before)
        corrupt = glob.glob(os.path.join(pipeline.dir, "state", "snapshots", "**", "*.corrupt"), recursive=True)
        assert corrupt, "no snapshot was set aside"
        assert pipeline.log_lines("corrupt") or pipeline.log_lines("set aside"), "nobody said so"
        StreamRules(pipeline).nothing_needless()
        for r in routers:
            r.close()
        print(f"ok: {len(corrupt)} corrupt snapshots set aside; restored from the log alone", flush=True)


def reboot():
    """The runtime directory is gone (a reboot), the state directory is there; once with a snapshot, once without."""
    with pipeline_of(shards=2) as pipeline:
        routers = some_routers()
        connect_all(pipeline, routers)
        before = told(pipeline, routers)
        for with_snapshot in (True, False):
            if with_snapshot:
                snapshot(pipeline)
            else:
                shutil.rmtree(os.path.join(pipeline.dir, "state", "snapshots"), ignore_errors=True)
            for r in routers:
                r.change(20)
            before = told(pipeline, routers)
            pipeline.stop()
            for name in os.listdir(pipeline.run_dir):
                path = os.path.join(pipeline.run_dir, name)
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            gone = 0
            for r in routers:
                r.disconnect("close")
                gone += len(r.withdraw(12))
            pipeline.start()
            connect_all(pipeline, routers)
            after = told(pipeline, routers)
            assert after == before + gone, (with_snapshot, reasons_since(pipeline, before))
        StreamRules(pipeline).nothing_needless()
        for r in routers:
            r.close()
        print("ok: new rings after a reboot, with and without a snapshot: nothing told again, withdraws told", flush=True)


CASES = [withdraw_while_down, between_snapshot_and_crash, random_kills, other_shards, broker_away_with_snapshots,
         broker_away_without, corrupt_snapshot, reboot]

if __name__ == "__main__":
    needs_metric("arancini_ingest_restore_state")
    print(f"seed {SEED}", flush=True)
    start = time.monotonic()
    wanted = set(sys.argv[1:])
    assert wanted <= {c.__name__ for c in CASES}, wanted
    for case in CASES:
        if not wanted or case.__name__ in wanted:
            case()
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
