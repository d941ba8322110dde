#!/usr/bin/env python3
"""One router dumps a million routes at full speed while another one sends a withdraw (then the announcement again) every
50 ms: how long each takes from the router's socket to a consumer of the stream. Once through the same ring, once through
another. Figures depend on the machine; what must hold is that what comes early in a dump does not wait for its
end.

ARANCINI_LONG=1: twelve dumps instead of four."""
import ipaddress
import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

from as_change_test import bgp, message, peer_header, peer_up
from harness import Pipeline, binary, wait_for
from nats_servers import NatsClient

DUMPS = 12 if os.environ.get("ARANCINI_LONG") else 4
PEERS, PREFIXES = 4, 250_000
INTERVAL_S = 0.05
ASN = 65001
READ = "arancini_ingest_updates_announced_total"
ACKED = "arancini_publish_updates_acked_total"
ROUTE = b"\x18" + ipaddress.ip_address("198.51.100.0").packed[:3]
ATTRIBUTES = (b"\x40\x01\x01\x00" + struct.pack(">BBBBBI", 0x40, 2, 6, 2, 1, ASN) + b"\x40\x03\x04" +
              ipaddress.ip_address("192.0.2.1").packed)


def announce():
    return message(0, peer_header(ASN) + bgp(2, struct.pack(">HH", 0, len(ATTRIBUTES)) + ATTRIBUTES + ROUTE))


def withdraw():
    return message(0, peer_header(ASN) + bgp(2, struct.pack(">H", len(ROUTE)) + ROUTE + struct.pack(">H", 0)))


class Flapper:
    """A router of one route that goes and comes; knows when each update was sent and when the stream gave it out."""

    def __init__(self, pipeline, address):
        host, port = pipeline.nats.removeprefix("nats://").rsplit(":", 1)
        self.client = NatsClient(host, int(port))
        self.client.follow("ARANCINI_UPDATES", f"arancini.updates.v4_{address.replace('.', '_')}.>")
        self.socket = socket.create_connection(pipeline.bmp_address, source_address=(address, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent, self.seen = [], []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._send, self._receive)]
        for t in self.threads:
            t.start()

    def _send(self):
        self.socket.sendall(message(4, struct.pack(">HH", 2, 1) + b"f") + peer_up(ASN))
        while not self.stop.is_set():
            update = withdraw() if len(self.sent) % 2 else announce()
            self.sent.append(time.monotonic())
            self.socket.sendall(update)
            self.stop.wait(INTERVAL_S)

    def _receive(self):
        while True:
            try:
                _, _, headers, _ = self.client.next(60)
            except OSError:
                return
            count = next(int(h.split(":")[1]) for h in headers.split("\r\n") if h.startswith("Arancini-Count:"))
            self.seen += [time.monotonic()] * count  # in the order in which they were sent

    def finish(self):
        self.stop.set()
        self.threads[0].join()
        wait_for("all of the small router's updates have come", lambda: len(self.seen) >= len(self.sent), 60)
        assert len(self.seen) == len(self.sent), (len(self.seen), len(self.sent))
        self.socket.close()
        self.client.socket.shutdown(socket.SHUT_RDWR)

    def delays_ms(self, begin, end):
        return sorted((seen - sent) * 1000 for sent, seen in zip(self.sent, self.seen) if begin <= sent < end)


def shown(delays):
    def at(share):
        return delays[min(int(len(delays) * share), len(delays) - 1)]
    return f"p50 {statistics.median(delays):.1f} ms, p99 {at(0.99):.1f} ms, max {delays[-1]:.1f} ms of {len(delays)}"


def dump(pipeline, path, number):
    """A router's table arrives; returns when its sending began and when the last of it was acked."""
    routes, acked = pipeline.metric(READ), pipeline.metric(ACKED)
    begin = time.monotonic()
    router = subprocess.Popen([binary("bmpreplay"), "--to", pipeline.bmp, "--source", f"127.0.9.{number}", "--hold", "600", path],
                              stdout=subprocess.DEVNULL)
    # The small router's own updates count, too: a few dozens.
    wait_for("the table is read", lambda: pipeline.metric(READ) >= routes + PEERS * PREFIXES, 60)
    read = time.monotonic()
    wait_for("the table is acked", lambda: pipeline.metric(ACKED) >= acked + PEERS * PREFIXES, 60)
    return begin, read, time.monotonic(), router


def run(shards, small):
    with Pipeline(shards=shards) as pipeline:
        path = os.path.join(pipeline.dir, "dump.bmp")
        pipeline.command(binary("bmpgen"), "--out", path, "--peers", str(PEERS), "--prefixes", str(PREFIXES))
        flapper = Flapper(pipeline, small)
        wait_for("the small router's updates come", lambda: len(flapper.seen) >= 20)
        quiet_end = time.monotonic()
        dumps = []
        try:
            dumps = [dump(pipeline, path, i + 1) for i in range(DUMPS)]
            flapper.finish()
            shard_of = {r["address"]: r["shard"] for r in pipeline.routers()}
        finally:
            for d in dumps:
                d[3].terminate()
                d[3].wait()
        print(f"{shards} shard{'s' * (shards > 1)}: alone {shown(flapper.delays_ms(0, quiet_end))}", flush=True)
        for same in (True, False):
            these = [d for i, d in enumerate(dumps) if (shard_of[f"127.0.9.{i + 1}"] == shard_of[small]) == same]
            during = sorted(ms for begin, _, end, _ in these for ms in flapper.delays_ms(begin, end))
            if during:
                print(f"  {'the same' if same else 'another'} ring, {len(these)} dumps of {PEERS * PREFIXES} routes, each read in "
                      f"{statistics.mean(d[1] - d[0] for d in these):.2f} s and acked in "
                      f"{statistics.mean(d[2] - d[0] for d in these):.2f} s: {shown(during)}", flush=True)
        spilled = pipeline.metric("arancini_publish_journal_spilled_bytes_total")
        print(f"  {spilled / 1e6:.0f} MB went through the journal", flush=True)
        # Generous, since the machine may be busy: what comes early in a dump is out before the dump is.
        for begin, _, end, _ in dumps:
            late = [ms for ms in flapper.delays_ms(begin, begin + (end - begin) / 4) if ms > (end - begin) * 1000]
            assert not late, f"updates waited for the end of a dump of {end - begin:.2f} s: {late}"


if __name__ == "__main__":
    start = time.monotonic()
    run(1, "127.0.8.1")
    run(2, "127.0.8.1")
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
