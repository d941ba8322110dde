#!/usr/bin/env python3
"""Table dumps of many routers at once, as after a collector's restart or a failure in the network.

METHOD. 200 routers, each with an address of its own (127.0.x.y), connect to one ingestd one right after the other and send their tables
as fast as TCP takes them, each from when it is connected: 2 peers with 2,500 prefixes each, 1M routes in all (bmpgen's bytes, the same
for each router, sent with sendfile() and cubic from one process; a router holds 64 KiB that were not taken yet). ingestd on the first core, the routers and ring_drain on the others; rows differ in
bmp.backlog (the accept queue) and bmp.rcvbuf_bytes (SO_RCVBUF; 0 leaves it to the kernel, which then adjusts it by itself).

all in ring  from the first connect() until ring_drain has read the last update
connect      p50 and greatest time until a connection was established, for the router
late         routers that were connected only after 0.9 s or more: the kernel drops what would establish a connection while the accept
             queue is full, and the router's tries again after 1 s
refused      connections that were refused or reset; such a router begins anew at once
overflows    how often the accept queue was full when a connection should have come in (TcpExtListenOverflows, of the whole machine)
first, last  when the first and the last router had everything sent (its last byte in the socket), since the first connect()
memory       greatest resident memory of ingestd less what it had before (tables of 1M routes included), and greatest memory of all
             TCP sockets of the machine (/proc/net/sockstat) less what it was before: that is where unread data waits"""
import errno
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import processes as p

KINDS = {  # name: (backlog, rcvbuf_bytes)
    "default": (1024, 0), "small_backlog": (8, 0), "small_rcvbuf": (1024, 64 * 1024), "large_rcvbuf": (1024, 8 * 1024 * 1024),
    "both_small": (8, 64 * 1024),
}
LATE_S = 0.9  # the kernel sends a SYN again after a second


def socket_bytes():
    with open("/proc/net/sockstat") as f:
        for line in f:
            if line.startswith("TCP:"):
                words = line.split()
                return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGESIZE")
    return 0


def listen_overflows():
    with open("/proc/net/netstat") as f:
        names, values = [line.split() for line in f if line.startswith("TcpExt:")]
    return int(values[names.index("ListenOverflows")])


class Router:
    def __init__(self, number, to):
        self.source = f"127.0.{100 + number // 250}.{1 + number % 250}"
        self.to, self.refused = to, 0
        self.offset, self.begun, self.connected_at, self.sent_at = 0, None, None, None
        self.connect()

    def connect(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)  # the kernel doubles it
        self.socket.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        self.socket.bind((self.source, 0))
        self.begun = self.begun or time.monotonic()
        self.socket.connect_ex(self.to)

    def writable(self, file, size):
        """True when all is sent."""
        if self.connected_at is None:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            self.connected_at = time.monotonic()
        try:
            self.offset += os.sendfile(self.socket.fileno(), file, self.offset, size - self.offset)
        except BlockingIOError:
            return False
        if self.offset == size:
            self.sent_at = time.monotonic()
        return self.offset == size


def storm(args, file, size, updates, settings):
    with p.Ingestd(args.build, settings=settings, cores=p.INGEST_CORES) as d, \
            p.ring_drain(args.build, [d.ring_path], p.OTHER_CORES) as sink:
        before_memory, before_sockets, most_sockets = p.resident_bytes(d.pid), socket_bytes(), 0
        overflows = listen_overflows()
        selector = selectors.DefaultSelector()
        begin = time.monotonic()
        routers = []
        left, looked = args.sessions, 0.0
        while left:
            if len(routers) < args.sessions:
                routers.append(Router(len(routers), ("127.0.0.1", d.port)))
                selector.register(routers[-1].socket, selectors.EVENT_WRITE, routers[-1])
            for key, _ in selector.select(0 if len(routers) < args.sessions else 1):
                r = key.data
                try:
                    done = r.writable(file, size)
                except OSError as e:
                    if e.errno not in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE):
                        raise
                    r.refused += 1
                    r.offset, r.connected_at = 0, None
                    selector.unregister(r.socket)
                    r.socket.close()
                    r.connect()
                    selector.register(r.socket, selectors.EVENT_WRITE, r)
                    continue
                if done:
                    selector.unregister(r.socket)
                    left -= 1
            now = time.monotonic()
            if now - looked > 0.005:
                looked, most_sockets = now, max(most_sockets, socket_bytes())
            if now - begin > 120:
                raise RuntimeError(f"{left} routers of {args.sessions} are not through:\n{d.log_text()}")
        end = sink.wait(updates * args.sessions)
        d.stats.settled()
        connect = [r.connected_at - r.begun for r in routers]
        result = {"seconds": end - begin, "updates_per_s": updates * args.sessions / (end - begin),
                  "connect_p50_s": statistics.median(connect), "connect_max_s": max(connect), "late": sum(c > LATE_S for c in connect), "overflows": listen_overflows() - overflows,
                  "refused": sum(r.refused for r in routers), "first_s": min(r.sent_at for r in routers) - begin,
                  "last_s": max(r.sent_at for r in routers) - begin,
                  "resident_bytes": max(p.resident_bytes(d.pid) - before_memory, 0),
                  "socket_bytes": max(most_sockets - before_sockets, 0), "cpu_s": p.cpu_s(d.pid),
                  "routes": d.stats.value("Routes"), "malformed": d.stats.value("MessagesMalformed")}
        if result["routes"] != updates * args.sessions or result["malformed"]:
            raise RuntimeError(f"{result['routes']} routes, {result['malformed']} malformed messages")
        for r in routers:
            r.socket.close()
        return result


def main():
    parser = p.parser(__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--routes", type=int, default=5000, help="of each router")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=JSON", help="another setting of ingestd")
    args = p.parse(parser)
    if args.quick:
        args.routes = 500
    print(p.describe_machine(args.build), flush=True)
    with tempfile.NamedTemporaryFile(prefix="burst-bench-") as f:
        subprocess.run([p.binary(args.build, "bmpgen"), "--out", f.name, "--peers", "2", "--prefixes", str(args.routes // 2)],
                       check=True, capture_output=True)
        file = os.memfd_create("burst")
        size = os.write(file, f.read())
    os.sched_setaffinity(0, p.OTHER_CORES)
    figures = p.Figures()
    for n in range(args.repeat):
        for kind in args.kinds.split(","):
            backlog, rcvbuf = KINDS[kind]
            settings = p.settings_of(args.set, {"bmp": {"backlog": backlog, "rcvbuf_bytes": rcvbuf}})
            r = storm(args, file, size, args.routes // 2 * 2, settings)
            for name, value in r.items():
                figures.add(f"burst.{args.sessions}_sessions.{kind}.{name}", value,
                            detail=name not in ("seconds", "updates_per_s", "late", "refused", "connect_max_s", "resident_bytes", "socket_bytes"))
            p.progress(f"{n + 1}/{args.repeat} {kind}: {r['seconds']:.2f} s, {r['late']} late, {r['refused']} refused")
    rows = []
    for kind in args.kinds.split(","):
        k = f"burst.{args.sessions}_sessions.{kind}."
        rows.append([kind, *KINDS[kind], figures.spread(k + "seconds"), figures.spread(k + "updates_per_s", 1e-6),
                     figures.spread(k + "connect_p50_s", 1e3, 1), figures.spread(k + "connect_max_s", 1e3, 0), figures.spread(k + "late", 1, 0),
                     figures.spread(k + "refused", 1, 0), figures.spread(k + "overflows", 1, 0), figures.spread(k + "first_s"), figures.spread(k + "last_s"),
                     figures.spread(k + "resident_bytes", 2**-20, 0), figures.spread(k + "socket_bytes", 2**-20, 0)])
    print(p.text_table(["", "backlog", "rcvbuf", "all in ring s", "M updates/s", "connect p50 ms", "max ms", "late", "refused", "overflows", "first s",
                        "last s", "ingestd MiB", "sockets MiB"], rows))
    figures.write(args.json)


if __name__ == "__main__":
    sys.exit(main())
