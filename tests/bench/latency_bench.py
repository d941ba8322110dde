#!/usr/bin/env python3
"""How long an update takes from the router's socket to the ring, and to JetStream's ack.

METHOD. latency_probe is a router: after a table of 100,000 routes it sends single-prefix UPDATEs (bmpgen's churn: each with new
attributes, 20 % withdrawals; each makes exactly one update, which is checked) on a schedule that is fixed in advance, and looks at the
shard's ring from outside. In each run first as fast as they are taken: the maximum rate; then at 10 %, 50 % and 80 % of it.

latency    from the time at which the schedule sends an UPDATE until the probe sees it: in the ring (the committed tail has passed its
           record), or acked (publishd has moved the ring's head past it: it does that when JetStream has acked it). Also stamped into
           the UPDATE's per-peer header, and looked for in its record, so no message is taken for another. Counting from
           the schedule means that a stall is charged to every UPDATE that should have been sent during it, not only to the one that
           met it (no coordinated omission). p50, p99, p99.9 over all UPDATEs of a rate, then the median over the runs.
to ring    ingestd alone (pinned to the first core), the probe is the ring's reader on the other core, sends and looks in one thread
           that never sleeps: a look every 0.1 us, but none while send() runs (a few us for a message; the `send()` column): so figures are too
           high by up to that, never too low. `asleep`: ingestd sleeps in io_uring_enter() when nothing comes, as it does by default;
           `polling`: with the settings of --polling.
to ack     the whole pipeline with curated, publishd and nats-server (file store). The probe only looks, every 50 us, since four
           processes share the cores; so UPDATEs go out in bundles every 50 us, too. Its maximum rate is that of acked UPDATEs.
gaps       time that the probe itself was off its core for more than 50 us (150 with acks), in percent of the run: other programs, or the hypervisor. What
           is in the tail of the latencies may be that. Where it is permitted (root), ingestd and the probe, not the pipeline, run
           before all ordinary programs (SCHED_FIFO), so that a shared machine does not matter much; --no-fifo: they do not.
           Rates then last 0.7 s with a second's rest between, since the kernel reserves others a twentieth of each second.
Keys: latency.socket_to_ring_us_{p50,p99,p999}_half_load is at 50 % with ingestd polling (asleep where it cannot poll),
latency.asleep.socket_to_ring_… asleep, latency.socket_to_ack_… with the default format; everything is in
latency.{asleep,polling,ack.FORMAT}.{10,50,80}_percent.…"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import processes as p

SHARES = [0.1, 0.5, 0.8]
POINTS = ["p50", "p99", "p999"]


class Stream:
    """bmpgen's table and churn in a file."""

    def __init__(self, args):
        self.dir = tempfile.mkdtemp(prefix="latency-bench-", dir=args.dir)
        self.path = os.path.join(self.dir, "bmp")
        common = [p.binary(args.build, "bmpgen"), "--peers", "2", "--prefixes", str(args.routes // 2), "--seed", "1"]
        head = self.path + ".head"
        out = subprocess.run([*common, "--out", head], check=True, capture_output=True, text=True).stdout
        self.dump_updates, self.dump_bytes = int(re.search(r"(\d+) updates", out)[1]), os.path.getsize(head)
        os.unlink(head)
        churn = args.messages * (len(SHARES) + 1)
        subprocess.run([*common, "--out", self.path, "--churn", str(churn)], check=True, capture_output=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)


def probe(args, stream, bmp, ring, cores, drain, sleep_us):
    """One dictionary for the maximum and for each share."""
    command = [p.binary(args.build, "latency_probe"), "--to", bmp, "--file", stream.path, "--dump-bytes", str(stream.dump_bytes),
               "--dump-updates", str(stream.dump_updates), "--ring", ring, "--seconds", str(0.7 if args.fifo else args.seconds), "--messages",
               str(args.messages), "--sleep-us", str(sleep_us), *(["--drain"] if drain else []),
               *(["--rest-ms", "1000"] if args.fifo else [])]
    for share in SHARES:
        command += ["--share", str(share)]
    process = p.start(command, cores, args.fifo and drain, stdout=subprocess.PIPE, text=True)
    out = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError("latency_probe failed")
    return [json.loads(line) for line in out.splitlines()]


def to_ring(args, stream, settings):
    with p.Ingestd(args.build, settings=settings, cores=p.INGEST_CORES, fifo=args.fifo) as d:
        return probe(args, stream, d.bmp, d.ring_path, p.OTHER_CORES, True, 0)


def to_ack(args, stream, fmt):
    with p.NatsServer(args.store) as nats:
        tables = p.settings_of(args.set, {**p.DEFAULTS, "publish": {"format": fmt}})
        with p.pipeline(args, shards=1, settings=tables, nats=nats.url) as pipeline:
            result = probe(args, stream, pipeline.bmp, os.path.join(pipeline.run_dir, "ring-0"), None, False, 50)
            spilled = pipeline.metric("arancini_publish_journal_spilled_bytes_total")
            if spilled:  # then the head moves when the journal has it
                p.progress(f"{spilled:.0f} bytes went through the journal: the acks of this run are not JetStream's, left out")
                return []
            return result


def has(args, settings):
    """ingestd knows these settings."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as f:
        p.write_toml(f.name, settings)
        r = subprocess.run([p.binary(args.build, "ingestd"), "--check-config", "--config", f.name], capture_output=True)
        return r.returncode == 0


def main():
    parser = p.parser(__doc__)
    parser.add_argument("--routes", type=int, default=100_000, help="of the table")
    parser.add_argument("--messages", type=int, default=500_000, help="UPDATEs at each rate at most")
    parser.add_argument("--seconds", type=float, default=2, help="of each rate")
    parser.add_argument("--formats", default="update-v1-concat", help="for the acks; may be empty")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=JSON", help="a setting of the daemons")
    parser.add_argument("--polling", action="append", default=[], metavar="TABLE.KEY=JSON",
                        help="what makes ingestd poll instead of sleep, default bmp.spin_us=1000")
    parser.add_argument("--no-fifo", action="store_true", help="not before all ordinary programs")
    parser.add_argument("--store", default="/var/tmp", help="disk on which nats-server stores")
    parser.add_argument("--dir", default="/var/tmp", help="for the generated UPDATEs")
    args = p.parse(parser)
    if args.quick:
        args.messages, args.seconds = 50_000, 1
    args.fifo = not args.no_fifo and p.may_use_fifo()
    print(f"{p.describe_machine(args.build)}, {'SCHED_FIFO' if args.fifo else 'ordinary scheduling'}", flush=True)
    kinds = {"asleep": lambda s: to_ring(args, s, p.settings_of(args.set))}
    polling = p.settings_of(args.polling or ["bmp.spin_us=1000"], p.settings_of(args.set))
    if has(args, polling):
        kinds["polling"] = lambda s: to_ring(args, s, polling)
    else:
        print("ingestd has no such setting: without `polling`")
    for fmt in filter(None, args.formats.split(",")):
        kinds["ack." + fmt] = lambda s, fmt=fmt: to_ack(args, s, fmt)
    f = p.Figures()
    with Stream(args) as stream:
        for n in range(args.repeat):
            for kind, run in kinds.items():
                for r in run(stream):
                    key = f"latency.{kind}.{round(r['share'] * 100)}_percent"
                    f.add(key + ".updates_per_s", r["reached"])
                    f.add(key + ".in_gaps_percent", r["in_gaps_percent"], detail=True)
                    f.add(key + ".send_call_us_p99", r["send_call_us"]["p99"], detail=True)
                    for what in ("ring", "ack"):
                        for point in POINTS if r[what + "_us"] else []:
                            f.add(f"{key}.socket_to_{what}_us_{point}", r[what + "_us"][point], detail=r["share"] == 1)
                    us = r["ack_us"] or r["ring_us"]
                    p.progress(f"{n + 1}/{args.repeat} {kind}, {r['share']:.0%}: {r['reached']:.0f} updates/s, p50 {us['p50']:.0f}, "
                               f"p99 {us['p99']:.0f}, p99.9 {us['p999']:.0f} us, gaps {r['in_gaps_percent']:.2f} %")
    rows = []
    for kind in kinds:
        for share in [1.0, *SHARES]:
            key = f"latency.{kind}.{round(share * 100)}_percent"
            for what in ("ring", "ack"):
                if f"{key}.socket_to_{what}_us_p50" in f.runs:
                    rows.append([kind, f"{share:.0%}", f.spread(key + ".updates_per_s", 1e-3, 0), what,
                                 *[f.spread(f"{key}.socket_to_{what}_us_{point}", 1, 1) for point in POINTS],
                                 f.spread(key + ".send_call_us_p99", 1, 1), f.spread(key + ".in_gaps_percent", 1, 2)])
    print(p.text_table(["run", "load", "1000 updates/s", "socket to", "p50 us", "p99 us", "p99.9 us", "send() p99", "gaps %"], rows, 2))
    print("load 100%: as fast as taken, latency from the first byte of all; what there is of it is the backlog. --help has the method.")
    heads = {"asleep.": ("asleep", "ring"), "": ("polling" if "polling" in kinds else "asleep", "ring")}
    heads |= {"ack.": (kind, "ack") for kind in kinds if kind == "ack.update-v1-concat"}
    for name, (kind, what) in heads.items():
        for point in POINTS:
            f.runs[f"latency.{name.removeprefix('ack.')}socket_to_{what}_us_{point}_half_load"] = \
                f.runs[f"latency.{kind}.50_percent.socket_to_{what}_us_{point}"]
    f.write(args.json)


if __name__ == "__main__":
    sys.exit(main())
