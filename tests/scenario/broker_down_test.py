#!/usr/bin/env python3
"""What the broker may do without anyone else being stopped: be down, be frozen with its connections open, have no room. With a
ring of 16 MiB and the journal behind it the BMP sessions are read all the time, and in the end fold equals the source. When the
journal is full, too, the routers wait: no session ends, nothing is lost. With drop-newest and no journal they do not wait either: what
was not told is counted exactly, and told later.

ARANCINI_LONG=1: the outage takes two minutes."""
import os
import sys
import tempfile
import time

from harness import Load, Pipeline, SmallDisk, check_stream, wait_for
from nats_servers import NatsServer

OUTAGE_S = 120 if os.environ.get("ARANCINI_LONG") else 20
RATE = 2_000_000  # bytes of BMP per second of each of two routers: the rings hold about five seconds
MIB = 1 << 20
JOURNAL = "arancini_publish_journal_bytes"
SPILLED = "arancini_publish_journal_spilled_bytes_total"
FULL = "arancini_ingest_ring_full_total"
THROTTLED = "arancini_ingest_sessions_throttled"
QUICK = {"supervise": {"backoff_max_s": 0.3}}


def load_of(pipeline, rate=RATE):
    return Load(pipeline, routers=2, peers=2, prefixes=10000, churn=20000, rate=rate)


def flows(pipeline, nats, seconds=60):
    last = nats.js("STREAM.INFO.ARANCINI_UPDATES")["state"]["last_seq"]
    wait_for("the stream grows", lambda: nats.js("STREAM.INFO.ARANCINI_UPDATES")["state"]["last_seq"] > last + 50, seconds)


class Started:
    """A broker, a pipeline and routers that send; publishing when entered."""

    def __init__(self, settings=None, store=None, jetstream="", state=None, rate=RATE):
        self.settings, self.server, self.state, self.rate = {**QUICK, **(settings or {})}, (store, jetstream), state, rate

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="arancini-nats-")
        self.nats = NatsServer(self.folder.name, store=self.server[0], jetstream=self.server[1])
        self.entered = [self.folder, self.nats]
        try:
            self.nats.start()
            wait_for("JetStream answers", self.has_jetstream, 10)
            self.pipeline = Pipeline(shards=2, nats=self.nats.url, settings=self.settings, state=self.state)
            self.entered.append(self.pipeline)
            self.load = load_of(self.pipeline, self.rate)
            self.entered.append(self.load)
            wait_for("it publishes", lambda: self.pipeline.metric("arancini_publish_updates_acked_total") > 40000, 30)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def has_jetstream(self):
        try:
            return self.nats.js("INFO", timeout=1)
        except OSError:
            return False

    def __exit__(self, kind, value, trace):
        for what in reversed(self.entered):
            what.__exit__(kind, value, trace)

    def done(self):
        self.load.finish()
        records = check_stream(self.pipeline, self.load)
        assert self.pipeline.metric(JOURNAL) == 0
        return records


def read_all_the_time(run, seconds):
    """The routers are read at their rate while the journal grows, second by second. Returns the journal's bytes."""
    pipeline, load = run.pipeline, run.load
    full, bound = pipeline.metric(FULL), time.monotonic() + seconds
    slowest, spilled = None, 0
    while time.monotonic() < bound:
        sent, since = sum(load.sent), time.monotonic()
        # Half of the rate, so that a busy machine does not fail the test; a router that waits sends nothing.
        wait_for("the routers are read", lambda: sum(load.sent) >= sent + RATE, 10, 0.02)
        slowest = max(slowest or 0, time.monotonic() - since)
        assert pipeline.metric(THROTTLED) == 0, "a session is throttled"
        spilled = max(spilled, pipeline.metric(JOURNAL))
    load.alive()
    assert pipeline.metric(FULL) == full, f"a ring was full {pipeline.metric(FULL) - full:.0f} times"
    assert spilled > 0, "nothing went to the journal"
    return spilled, slowest


def down():
    with Started() as run:
        run.nats.kill()
        spilled, slowest = read_all_the_time(run, OUTAGE_S)
        assert spilled > 32 * MIB, f"the rings would have held it: {spilled:.0f} bytes in the journal"
        run.nats.start()
        begin = time.monotonic()
        wait_for("the journal is empty again", lambda: run.pipeline.metric(JOURNAL) == 0, 120)
        took = time.monotonic() - begin
        records = run.done()
        print(f"ok: broker down for {OUTAGE_S} s: {spilled / MIB:.0f} MiB in the journal, sessions never throttled (longest wait for "
              f"{RATE / 1e6:.0f} MB {slowest:.2f} s), replayed in {took:.1f} s under load; {records} updates, fold equals the source",
              flush=True)


def degraded(run):
    return next(p for p in run.pipeline.status()["processes"] if p["name"] == "publishd")["state"] == "degraded"


def frozen():
    with Started() as run:
        run.nats.freeze()
        spilled, slowest = read_all_the_time(run, 10)
        noticed = run.pipeline.log_lines("publishd: publishing stopped", "no ack")
        assert noticed, "no word about acks that do not come"
        wait_for("publishd says that it does not publish", lambda: degraded(run), 30)
        run.nats.thaw()
        records = run.done()
        print(f"ok: broker frozen under load: {noticed[0].split('publishd: ')[1]!r}; {spilled / MIB:.0f} MiB in the journal, sessions never "
              f"throttled (longest wait for {RATE / 1e6:.0f} MB {slowest:.2f} s); {records} updates, fold equals the source", flush=True)


def stuck_ack():
    """With little to publish no ring fills: the ack's own time-out tells."""
    with Started(settings={"nats": {"ack_timeout_s": 2.0}}, rate=20_000) as run:
        timeouts = run.pipeline.metric("arancini_publish_ack_timeouts_total")
        run.nats.freeze()
        wait_for("the stuck ack is noticed", lambda: run.pipeline.metric("arancini_publish_ack_timeouts_total") > timeouts, 30)
        assert run.pipeline.log_lines("(504)"), "no word about acks that do not come"
        wait_for("publishd says that it does not publish", lambda: degraded(run), 30)
        assert run.pipeline.metric(SPILLED) == 0, "nothing fills, and yet it was spilled"
        run.nats.thaw()
        records = run.done()
        print(f"ok: broker frozen, little load: the stuck ack is noticed by its time-out; {records} updates, fold equals the source", flush=True)


def one_error(run, *words):
    lines = [line for line in run.pipeline.log_lines(" error publishd") if any(w in line for w in words)]
    assert lines, f"no error names {words}"
    assert len(lines) <= 2, "said again and again:\n" + "\n".join(lines)
    return lines[0].split("publishd: ", 1)[1]


def store_limit():
    with Started(jetstream="max_file_store: 40MB") as run:
        wait_for("publishd says that the store is full", lambda: run.pipeline.log_lines(" error publishd", "(508)"), 60)
        said = one_error(run, "(508)")
        spilled, _ = read_all_the_time(run, 3)
        run.nats.kill()
        run.nats.configure(jetstream="max_file_store: 4GB")
        run.nats.start()
        records = run.done()
        print(f"ok: the server's limit is reached: {said!r}; {spilled / MIB:.0f} MiB in the journal; {records} updates, fold equals the "
              "source", flush=True)


def store_disk_full():
    with SmallDisk(48) as disk, Started(store=disk.path, jetstream="max_file_store: 4GB") as run:
        wait_for("the disk of nats-server is full", lambda: not run.has_jetstream(), 60)
        wait_for("publishd says so", lambda: run.pipeline.log_lines(" error publishd"), 30)
        spilled, _ = read_all_the_time(run, 3)
        # nats-server 2.9.10 does not say what ails it: JetStream answers nothing any more, until the server is started again.
        said = one_error(run, "JetStream", "(508)")
        disk.resize(4096)
        run.nats.kill()
        run.nats.start()
        records = run.done()
        print(f"ok: the server's disk is full: {said!r}; {spilled / MIB:.0f} MiB in the journal; {records} updates, fold equals the "
              "source", flush=True)


def journal_full(disk=None):
    """By its limit, or because the disk is full (and then gets larger)."""
    settings = {"journal": {"segment_bytes": 8 * MIB, "max_bytes": 0 if disk else 24 * MIB}}
    with Started(settings, state=disk and disk.path) as run:
        run.nats.kill()
        wait_for("the routers wait", lambda: run.pipeline.metric(THROTTLED) == 2, 60)
        wait_for("publishd says why", lambda: run.pipeline.log_lines(" error publishd", "(601)"), 30)
        said = one_error(run, "(601)", "(602)")
        spilled = run.pipeline.metric(JOURNAL)
        sent = list(run.load.sent)
        if disk:
            disk.resize(4096)
            wait_for("the routers are read again, without a broker",
                     lambda: all(a > b + RATE for a, b in zip(run.load.sent, sent)), 60)
        run.load.alive()
        run.nats.start()
        records = run.done()
        print(f"ok: broker down and {'the disk of the journal' if disk else 'the journal'} full: {said!r}; {spilled / MIB:.0f} MiB in the "
              f"journal, the routers wait; {records} updates, fold equals the source", flush=True)


def drop_newest():
    """Nothing takes what comes, and the routers are not to wait: counted exactly, per router, and made good afterwards."""
    names = ("announcements", "withdraws")
    with Started({"journal": {"enabled": False}, "ring": {"when_full": "drop-newest", "size_bytes": 16 * MIB}}) as run:
        pipeline, load = run.pipeline, run.load

        def dropped(what):
            return pipeline.metric_by(f"arancini_router_{what}_dropped_total", "router")

        run.nats.freeze()
        wait_for("both routers' changes are dropped", lambda: all(len(dropped(w)) == 2 and min(dropped(w).values()) > 1000 for w in names),
                 60)
        sent = list(load.sent)
        wait_for("the routers are read on", lambda: all(a > b + RATE for a, b in zip(load.sent, sent)), 30)
        assert pipeline.metric(THROTTLED) == 0, "a session is throttled"
        untold = pipeline.metric("arancini_ingest_routes_untold")
        run.nats.thaw()
        load.finish()
        wait_for("all is told", lambda: pipeline.metric("arancini_ingest_routes_untold") == 0, 60)
        records = run.done()
        counts = {w: dropped(w) for w in names}
        told = {}

        def said():
            for what in names:
                told[what] = {}
            for e in pipeline.events():
                if e["kind"] == "dropped":
                    for what in names:
                        told[what][e["router"]] = told[what].get(e["router"], 0) + e["counters"][what]
            return told == counts
        try:
            wait_for("the events say of each router what was dropped", said, 30, 0.5)
        except AssertionError as e:
            raise AssertionError(f"{e}: {told} instead of {counts}") from None
        total = {w: int(sum(c.values())) for w, c in counts.items()}
        print(f"ok: broker frozen, no journal, drop-newest: {total} dropped, the events say the same of each router; {untold:.0f} routes were "
              f"untold, none is; {records} updates, fold equals the source", flush=True)


if __name__ == "__main__":
    start = time.monotonic()
    down()
    frozen()
    stuck_ack()
    store_limit()
    journal_full()
    drop_newest()
    if SmallDisk.possible():
        store_disk_full()
        with SmallDisk(40) as small:
            journal_full(small)
    else:
        print("not run: full disks, which need root to mount a small tmpfs")
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
