#!/usr/bin/env python3
"""What the daemons use while nothing happens.

METHOD. The whole pipeline with default settings (two shards, publishd, curated, nats-server with file store): first without any
session, then with 32 routers whose tables of 100,000 routes together have been published and acked, and which stay connected and
silent. Each time CPU clocks of all threads of each process over 10 s, in percent of a core. idle.cpu_percent is the worst of
ingestd, publishd and curated in either state; nats-server is shown, but is not ours."""
import sys
import time

import processes as p

SESSIONS = 32


def percent(pids, seconds):
    before = {name: p.cpu_s(pid) for name, pid in pids.items()}
    wakes = {name: sum(p.switches(pid).values()) for name, pid in pids.items()}
    begin = time.monotonic()
    time.sleep(seconds)  # this is what is measured
    took = time.monotonic() - begin
    return {name: (100 * (p.cpu_s(pid) - before[name]) / took, (sum(p.switches(pid).values()) - wakes[name]) / took)
            for name, pid in pids.items()}


def main():
    parser = p.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=JSON", help="a setting of the daemons")
    args = p.parse(parser)
    if args.quick:
        args.seconds = 3
    import harness
    f = p.Figures()
    for n in range(args.repeat):
        with p.NatsServer() as nats, harness.Pipeline(shards=2, settings=p.settings_of(args.set, p.DEFAULTS), nats=nats.url) as pipeline:
            pids = {name: pipeline.pid(name) for name in ("ingestd@0", "ingestd@1", "publishd")}
            pids |= {"curated": pipeline.process.pid, "nats-server": nats.pid}
            worst = 0.0

            def measure(state, pids=pids):
                nonlocal worst
                for name, (cpu, wakes) in percent(pids, args.seconds).items():
                    f.add(f"idle.{state}.{name}.cpu_percent", cpu)
                    f.add(f"idle.{state}.{name}.switches_per_s", wakes, detail=True)
                    if name != "nats-server":
                        worst = max(worst, cpu)

            harness.wait_for("the pipeline is up", pipeline.drained)
            measure("no_sessions")
            with p.Generator(args.build, pipeline.bmp, SESSIONS, 1, 100_000 // SESSIONS) as generator:
                generator.ready("dump")
                generator.begin()
                updates = generator.sent("dump")[0]
                harness.wait_for("all is acked", lambda: pipeline.metric("arancini_publish_updates_acked_total") >= updates, 60)
                harness.wait_for("the re-syncs are over", lambda: pipeline.metric("arancini_ingest_sweeps_running") == 0, 60)
                measure("open_sessions")
            f.add("idle.cpu_percent", worst)
        p.progress(f"{n + 1}/{args.repeat}: worst {worst:.2f} %")
    rows = [[name, *[x for state in ("no_sessions", "open_sessions")
                     for x in (f.spread(f"idle.{state}.{name}.cpu_percent"), f.spread(f"idle.{state}.{name}.switches_per_s", 1, 0))]]
            for name in pids]
    print(p.text_table(["process", "no sessions: % of a core", "switches/s", f"{SESSIONS} sessions: % of a core", "switches/s"], rows))
    f.write(args.json)


if __name__ == "__main__":
    sys.exit(main())
