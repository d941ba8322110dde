#!/usr/bin/env python3
"""Planned restarts of ingestd keep the routers' sessions (docs/decisions/0014): the same TCP connections before and after, no record
lost, none twice. One function a case; arguments name those to run (all). ARANCINI_LONG=1: a million routes where the pause is
measured, and more restarts."""
import os
import random
import resource
import signal
import socket
import struct
import sys

from bmp_router import Churn, Router, StreamRules, clean_audit, folds_to_truth, message
from harness import Load, Pipeline, folded_equals, wait_for

SEED = int(os.environ.get("ARANCINI_SEED", random.randrange(1 << 32)))
LONG = bool(os.environ.get("ARANCINI_LONG"))
SETTINGS = {"curation": {"session_grace_s": 60.0, "resync_settle_s": 0.5, "resync_timeout_s": 30.0}}


def restart(pipeline, shard):
    """SIGTERM, as an operator or systemd would; back when the sessions are read again."""
    name = f"ingestd@{shard}"
    taken = len(pipeline.log_lines(name, "sessions go on"))
    os.kill(pipeline.pid(name), signal.SIGTERM)
    wait_for("sessions are taken over", lambda: len(pipeline.log_lines(name, "sessions go on")) > taken, 60)


def metric(pipeline, name):
    return pipeline.metric_by("arancini_ingest_restart_" + name, "shard")


def sockets_of(routers):
    return [r.socket.getsockname() for r in routers]


def under_churn():
    """Changes go on while each shard is restarted several times."""
    with Pipeline(shards=2, settings=SETTINGS) as pipeline:
        routers = [Router(f"127.0.13.{i + 1}", peers=2, prefixes=400, seed=SEED) for i in range(12)]
        for r in routers:
            r.connect(pipeline.bmp_address)
        sockets = sockets_of(routers)
        churn = Churn(routers, lambda: pipeline.bmp_address, pause=0.004, flaps=0)
        kept = pauses = None
        rounds = 10 if LONG else 4
        for _ in range(rounds):
            for shard in (0, 1):
                restart(pipeline, shard)
            kept, pauses = metric(pipeline, "sessions_kept"), metric(pipeline, "pause_seconds")
            assert sum(kept.values()) == len(routers), kept
            assert sum(metric(pipeline, "sessions_closed").values()) == 0, pipeline.log_text()
        churn.finish()
        assert not any(r.lost() for r in routers)
        assert sockets_of(routers) == sockets and all(r.reconnects == 1 for r in routers), [r.reconnects for r in routers]
        folds_to_truth(pipeline, routers)
        wait_for("all is drained", pipeline.drained, 60)
        clean_audit(pipeline)
        rules = StreamRules(pipeline).nothing_needless()
        assert set(rules.reasons) == {"none"}, rules.reasons
        kinds = [e["kind"] for e in pipeline.events()]
        assert kinds.count("session_up") == len(routers) and "session_down" not in kinds, kinds
        assert kinds.count("peer_up") == 2 * len(routers), kinds
        for r in routers:
            r.close()
        print(f"ok: {2 * rounds} restarts, {rules.updates} updates, all {len(routers)} sessions are the same; last pauses "
              f"{', '.join(f'{1000 * p:.0f} ms' for p in pauses.values())}", flush=True)


def in_the_middle():
    """A dump is under way, half of a message is sent, a re-sync with something missing is open: all of it goes on."""
    settings = {"curation": {"session_grace_s": 60.0, "resync_settle_s": 0.2, "resync_timeout_s": 6.0}}
    with Pipeline(shards=1, settings=settings) as pipeline:
        router = Router("127.0.13.40", peers=2, prefixes=300, seed=SEED)
        router.connect(pipeline.bmp_address)
        folds_to_truth(pipeline, [router])
        # Its first peer comes up again and tells half of what it had. The other half is missing when the re-sync ends.
        peer = router.peers[0]
        half = dict(sorted(peer.table.items())[::2])
        missing = len(peer.table) - len(half)
        peer.table = half
        dump = peer.up() + peer.updates(half, [])
        cut = len(dump) // 2
        router.send(dump[:cut])
        restart(pipeline, 0)
        router.send(dump[cut:cut + 3])
        restart(pipeline, 0)
        router.send(dump[cut + 3:])
        folds_to_truth(pipeline, [router])
        wait_for("all is drained", pipeline.drained, 60)
        clean_audit(pipeline)
        rules = StreamRules(pipeline).nothing_needless()
        assert rules.reasons == {"none": rules.updates - missing, "resyncMissing": missing}, (rules.reasons, missing)
        assert not router.lost() and router.reconnects == 1
        assert metric(pipeline, "sessions_kept") == {"0": 1.0}
        router.close()
        print(f"ok: a re-sync over two restarts withdraws just the {missing} routes that were not told", flush=True)


def stop_for_good():
    """There is no successor: sessions end with their events, and nothing waits."""
    with Pipeline(shards=1, settings=SETTINGS) as pipeline:
        router = Router("127.0.13.50", peers=1, prefixes=50, seed=SEED)
        router.connect(pipeline.bmp_address)
        folds_to_truth(pipeline, [router])
        pipeline.stop()
        assert wait_for("the session is closed", router.lost, 10)
        pipeline.start()
        wait_for("the end of the session is told",
                 lambda: [e["kind"] for e in pipeline.events()].count("session_down") == 1, 30)
        assert metric(pipeline, "sessions_kept") == {"0": 0.0}
        print("ok: a stop for good ends the sessions", flush=True)


def without_a_supervisor():
    """curated is dead at that moment: the sessions are closed, and the routers come back."""
    with Pipeline(shards=1, settings=SETTINGS) as pipeline:
        router = Router("127.0.13.60", peers=1, prefixes=50, seed=SEED)
        router.connect(pipeline.bmp_address)
        folds_to_truth(pipeline, [router])
        ingestd = pipeline.pid("ingestd@0")
        pipeline.process.kill()
        pipeline.process.wait()
        os.kill(ingestd, signal.SIGTERM)
        wait_for("the session is closed", router.lost, 20)
        pipeline.start()
        router.connect(pipeline.bmp_address)
        folds_to_truth(pipeline, [router])
        clean_audit(pipeline)
        StreamRules(pipeline).nothing_needless()
        # The new supervisor does it again, also with what it has adopted.
        adopted = pipeline.pid("ingestd@0")
        pipeline.process.kill()
        pipeline.process.wait()
        pipeline.start()
        assert pipeline.pid("ingestd@0") == adopted
        restart(pipeline, 0)
        assert not router.lost() and metric(pipeline, "sessions_kept") == {"0": 1.0}
        restart(pipeline, 0)
        pipeline.process.kill()
        pipeline.process.wait()
        pipeline.start()  # adopts one that was started with what its predecessor left
        restart(pipeline, 0)
        assert not router.lost() and metric(pipeline, "sessions_kept") == {"0": 1.0}
        router.close()
        print("ok: without a supervisor sessions end in order; a new one keeps those of the shards that it adopts", flush=True)


def when_the_ring_is_full():
    """publishd stands: sessions wait for room, with messages of which a part is told. These go on at that byte, once publishd does."""
    with Pipeline(shards=1, settings=SETTINGS) as pipeline:
        with Load(pipeline, routers=4, peers=2, prefixes=3_000, churn=20_000, first="127.0.15.1") as load:
            wait_for("the tables are told", lambda: pipeline.metric("arancini_ingest_routes") > 20_000, 60)
            publishd = pipeline.pid("publishd")
            for _ in range(3):
                os.kill(publishd, signal.SIGSTOP)
                try:
                    wait_for("all sessions wait", lambda: pipeline.metric("arancini_ingest_sessions_throttled") == 4, 60)
                    os.kill(pipeline.pid("ingestd@0"), signal.SIGTERM)
                    taken = len(pipeline.log_lines("sessions go on"))
                    wait_for("they are kept", lambda: pipeline.log_lines("4 sessions are kept")[taken:], 30)
                finally:
                    os.kill(publishd, signal.SIGCONT)
                wait_for("they go on", lambda: len(pipeline.log_lines("4 sessions go on")) > taken, 60)
                load.alive()
            load.finish()
            wait_for("the rings are drained", pipeline.drained, 120, 0.2)
            folded_equals(pipeline, load.truth, 120)
            clean_audit(pipeline)
            rules = StreamRules(pipeline).nothing_needless()
            assert set(rules.reasons) == {"none"}, rules.reasons
        print(f"ok: 3 restarts while the ring was full, {rules.updates} updates", flush=True)


def many_sessions():
    """More than fit into one message of descriptors, some of which have not said a word."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    number = 3000 if LONG else 600
    with Pipeline(shards=1, settings={**SETTINGS, "bmp": {"max_sessions": 4096}}) as pipeline:
        sockets = []
        name = struct.pack(">HH", 2, 1) + b"r"
        for n in range(number):
            s = socket.create_connection(pipeline.bmp_address, source_address=(f"127.0.16.{1 + n % 250}", 0))
            if n % 3:
                s.sendall(message(4, name)[:7 + n % 5])  # the beginning of an Initiation, or all of it
            sockets.append(s)
        wait_for("all are there", lambda: pipeline.metric("arancini_ingest_sessions_open") == number, 60)
        for _ in range(2):
            restart(pipeline, 0)
            assert metric(pipeline, "sessions_kept") == {"0": float(number)}
        last = metric(pipeline, "pause_seconds")["0"]
        for n, s in enumerate(sockets):
            s.sendall(message(4, name)[7 + n % 5 if n % 3 else 0:])
        wait_for("each Initiation is told", lambda: [e["kind"] for e in pipeline.events()].count("initiation") == number, 60)
        kinds = [e["kind"] for e in pipeline.events()]
        assert kinds.count("session_up") == number and "session_down" not in kinds
        assert pipeline.metric("arancini_ingest_messages_malformed_total") == 0
        for s in sockets:
            s.close()
        print(f"ok: {number} sessions over two restarts, not read for {1000 * last:.0f} ms", flush=True)


def pause():
    """How long sessions are not read."""
    prefixes = 200_000 if LONG else 4_000
    with Pipeline(shards=1, settings={**SETTINGS, "ring": {"size_bytes": 256 << 20}}) as pipeline:
        with Load(pipeline, routers=5, peers=1, prefixes=prefixes, churn=5_000, rate=100_000, first="127.0.14.1") as load:
            wait_for("the tables are told", lambda: pipeline.metric("arancini_ingest_routes") >= 4 * prefixes, 300)
            figures = []
            for _ in range(5):
                pipeline.aranctl("snapshot", timeout=120)
                restart(pipeline, 0)
                assert metric(pipeline, "sessions_kept") == {"0": 5.0}
                figures.append(metric(pipeline, "pause_seconds")["0"])
                load.alive()
            routes = pipeline.metric("arancini_ingest_routes")
            load.finish()
            wait_for("the rings are drained", pipeline.drained, 120, 0.2)
            folded_equals(pipeline, load.truth, 120)
            clean_audit(pipeline)
        for line in pipeline.log_lines("restored")[-1:] + pipeline.log_lines("sessions go on")[-1:]:
            print("  " + line)
        print(f"ok: {routes:.0f} routes, pauses of {', '.join(f'{1000 * f:.0f}' for f in figures)} ms", flush=True)


CASES = [under_churn, in_the_middle, stop_for_good, without_a_supervisor, when_the_ring_is_full, many_sessions, pause]

if __name__ == "__main__":
    print(f"ARANCINI_SEED={SEED}", flush=True)
    for case in CASES:
        if len(sys.argv) < 2 or case.__name__ in sys.argv[1:]:
            case()
