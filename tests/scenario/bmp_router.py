"""Routers for scenarios: each holds tables, changes them, and reconnects with everything that it has and End-of-RIB, as real
ones do. They know the truth, and what of the stream was needless is counted against nothing but the stream itself."""
import ipaddress
import json
import random
import socket
import struct
import sys
import threading
import time

from harness import wait_for


def message(kind, body):
    return struct.pack(">BIB", 3, 6 + len(body), kind) + body


def bgp(kind, body):
    return b"\xff" * 16 + struct.pack(">HB", 19 + len(body), kind) + body


def attribute(flags, kind, value):
    if len(value) > 255:
        return struct.pack(">BBH", flags | 0x10, kind, len(value)) + value
    return struct.pack(">BBB", flags, kind, len(value)) + value


NEXT_HOP, NEXT_HOP6 = ipaddress.ip_address("192.0.2.1").packed, ipaddress.ip_address("2001:db8::1").packed
PER_UPDATE = 40


class Peer:
    """One neighbour: Adj-RIB-In pre-policy, IPv4 and IPv6 unicast. tables: {prefix: version}, the version is MED and more."""

    def __init__(self, number):
        self.address = f"10.0.0.{number + 1}"
        self.asn = 65001 + number
        self.table = {}

    def header(self):
        return struct.pack(">BBQ", 0, 0, 0) + bytes(12) + ipaddress.ip_address(self.address).packed + struct.pack(
            ">IIII", self.asn, 0x0a000001, 0, 0)

    def up(self):
        def opening(asn):
            capabilities = (struct.pack(">BBHBB", 1, 4, 1, 0, 1) + struct.pack(">BBHBB", 1, 4, 2, 0, 1) +
                            struct.pack(">BBI", 65, 4, asn))
            return bgp(1, struct.pack(">BHHIBBB", 4, 23456, 180, 0x0a000001, len(capabilities) + 2, 2, len(capabilities)) +
                       capabilities)
        return message(3, self.header() + bytes(16) + struct.pack(">HH", 179, 40000) + opening(65000) + opening(self.asn))

    def as_path(self, version):
        return [self.asn, 64500 + version % 7]

    def attributes(self, version):
        path = self.as_path(version)
        return (attribute(0x40, 1, b"\0") + attribute(0x40, 2, struct.pack(">BB", 2, len(path)) + b"".join(
            struct.pack(">I", a) for a in path)) + attribute(0x80, 4, struct.pack(">I", version)) +
                attribute(0xc0, 8, struct.pack(">HH", 65000, version % 500)))

    def updates(self, announced, withdrawn):
        """announced: {prefix: version}."""
        out = b""
        for v6 in (False, True):
            gone = [p for p in withdrawn if (":" in p) == v6]
            for at in range(0, len(gone), PER_UPDATE):
                nlri = b"".join(map(encode, gone[at:at + PER_UPDATE]))
                if v6:
                    attrs = attribute(0x80, 15, struct.pack(">HB", 2, 1) + nlri)
                    out += self.update(struct.pack(">HH", 0, len(attrs)) + attrs)
                else:
                    out += self.update(struct.pack(">H", len(nlri)) + nlri + struct.pack(">H", 0))
            by_version = {}
            for p, version in announced.items():
                if (":" in p) == v6:
                    by_version.setdefault(version, []).append(p)
            for version, prefixes in by_version.items():
                for at in range(0, len(prefixes), PER_UPDATE):
                    nlri = b"".join(map(encode, prefixes[at:at + PER_UPDATE]))
                    attrs = self.attributes(version)
                    if v6:
                        attrs += attribute(0x80, 14, struct.pack(">HBB", 2, 1, 16) + NEXT_HOP6 + b"\0" + nlri)
                        nlri = b""
                    else:
                        attrs += attribute(0x40, 3, NEXT_HOP)
                    out += self.update(struct.pack(">HH", 0, len(attrs)) + attrs + nlri)
        return out

    def update(self, body):
        return message(0, self.header() + bgp(2, body))

    def end_of_rib(self):
        v6 = attribute(0x80, 15, struct.pack(">HB", 2, 1))
        return self.update(struct.pack(">HH", 0, 0)) + self.update(struct.pack(">HH", 0, len(v6)) + v6)


def encode(prefix):
    network = ipaddress.ip_network(prefix)
    return bytes([network.prefixlen]) + network.network_address.packed[:(network.prefixlen + 7) // 8]


PREFIXES = [f"10.{i >> 8}.{i & 255}.0/24" for i in range(1 << 14)]
PREFIXES6 = [f"2001:db8:{i:x}::/48" for i in range(1, 1 << 12)]  # as fold writes them


class Router:
    """address: the source address, and so the name. Not for two threads at once, but for churn() with its own."""

    def __init__(self, address, peers=2, prefixes=200, seed=1, versions=60):
        self.address, self.versions = address, versions
        self.rng = random.Random(f"{address} {seed}")
        self.peers = [Peer(n) for n in range(peers)]
        self.pool = PREFIXES[:prefixes] + PREFIXES6[:prefixes // 4]
        self.socket = None
        self.half_open = []
        self.reconnects = 0
        self.changes = 0  # of routes, from the first connection on
        for peer in self.peers:
            for prefix in self.pool:
                if self.rng.random() < 0.8:
                    peer.table[prefix] = self.rng.randrange(self.versions)

    # -- the session
    def connect(self, target, seconds=30):
        """A new session that tells everything; a former one that is still there is left half open."""
        if self.socket is not None:
            self.disconnect("half open")

        def attempt():
            try:
                return socket.create_connection(target, timeout=30, source_address=(self.address, 0))
            except OSError:
                return None
        self.socket = wait_for(f"{self.address} connects", attempt, seconds)
        self.socket.settimeout(None)  # lost() does not wait
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 60, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reconnects += 1
        name = self.address.encode()
        data = message(4, struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 1, 4) + b"test")
        for peer in self.peers:
            data += peer.up()
        for peer in self.peers:
            data += peer.updates(peer.table, []) + peer.end_of_rib()
        self.send(data)

    def send(self, data):
        """False (and no session any more) when the collector is gone."""
        if self.socket is None:
            return False
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            self.disconnect("close")
            return False

    def disconnect(self, how="close"):
        """how: close, reset, half open (nobody is told), cut (in the middle of a message)."""
        s, self.socket = self.socket, None
        if s is None:
            return
        if how == "half open":
            self.half_open.append(s)
            return
        try:
            if how == "cut":
                s.sendall(self.peers[0].end_of_rib()[:30])
            if how == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        s.close()

    def lost(self):
        """True: there is no session any more, though nobody here ended it."""
        if self.socket is None:
            return True
        try:
            if self.socket.recv(1, socket.MSG_DONTWAIT) == b"":
                self.disconnect("close")
                return True
        except BlockingIOError:
            return False
        except OSError:
            self.disconnect("close")
            return True
        return False

    def close_half_open(self):
        for s in self.half_open:
            s.close()
        self.half_open = []

    # -- the tables
    def change(self, routes):
        """That many random routes are announced, changed or withdrawn; told when there is a session."""
        data = b""
        for peer in self.peers:
            announced, withdrawn = {}, set()
            for prefix in self.rng.sample(self.pool, min(len(self.pool), -(-routes // len(self.peers)))):
                if prefix in peer.table and self.rng.random() < 0.4:
                    withdrawn.add(prefix)
                    continue
                version = self.rng.randrange(self.versions)
                if peer.table.get(prefix) != version:
                    announced[prefix] = version
            data += self._apply(peer, announced, withdrawn)
        return self.send(data)

    def withdraw(self, number, peer=0):
        """The first so many routes of a peer go. Returns their prefixes."""
        gone = sorted(self.peers[peer].table)[:number]
        self.send(self._apply(self.peers[peer], {}, set(gone)))
        return gone

    def announce(self, number, peer=0):
        """So many routes that are not there come."""
        table = self.peers[peer].table
        new = {p: 1 for p in [p for p in self.pool if p not in table][:number]}
        self.send(self._apply(self.peers[peer], new, set()))
        return list(new)

    def _apply(self, peer, announced, withdrawn):
        self.changes += len(announced) + len(withdrawn)
        for p in withdrawn:
            del peer.table[p]
        peer.table.update(announced)
        return peer.updates(announced, sorted(withdrawn))

    def truth(self):
        return {(self.address, peer.address, peer.asn, prefix, tuple(peer.as_path(version)), version)
                for peer in self.peers for prefix, version in peer.table.items()}

    def close(self):
        self.disconnect("close")
        self.close_half_open()


class Churn:
    """Routers that change their tables and come back by themselves, each in a thread, until finish(): then all are connected and
    have said everything. target(): where the collector listens now."""

    def __init__(self, routers, target, pause=0.02, routes=6, flaps=0.004):
        self.routers, self.target, self.pause, self.routes, self.flaps = routers, target, pause, routes, flaps
        self.finishing, self.failures = threading.Event(), []
        self.threads = [threading.Thread(target=self._run, args=(r,), daemon=True) for r in routers]
        for t in self.threads:
            t.start()

    def _run(self, router):
        rng = random.Random(router.address)
        try:
            while not self.finishing.is_set():
                if router.lost():
                    if rng.random() < 0.3:
                        router.change(self.routes * 5)  # while nobody hears it
                    self._connect(router, 60)
                elif rng.random() < self.flaps:
                    router.disconnect(rng.choice(["close", "reset", "half open", "cut"]))
                else:
                    router.change(self.routes)
                if len(router.half_open) > 3:
                    router.close_half_open()
                self.finishing.wait(rng.random() * 2 * self.pause)
        except Exception as e:  # noqa: BLE001: told by finish()
            self.failures.append(f"{router.address}: {e!r}")

    def _connect(self, router, seconds):
        deadline = time.monotonic() + seconds
        while True:
            try:
                router.connect(self.target(), 2)
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def finish(self, seconds=60):
        self.finishing.set()
        for t in self.threads:
            t.join(seconds)
            assert not t.is_alive(), "a router waits for the collector"
        assert not self.failures, self.failures

    def keep_connected(self):
        """Call while waiting: a router that the collector asked to tell anew (it closes the session) does so."""
        for router in self.routers:
            router.close_half_open()
            if router.lost():
                self._connect(router, 60)
        return True


def folded(pipeline):
    """None, and a line, while the broker is away."""
    r = pipeline.aranctl("fold", "--nats", pipeline.nats, "--json", check=False)
    if r.returncode != 0:
        print("fold:", r.stderr.strip(), file=sys.stderr)
        return None
    return {(r["router"], r["peer"], r["peer_asn"], r["prefix"], tuple(r["as_path"]), r.get("med"))
            for r in map(json.loads, r.stdout.splitlines())}


def truth_of(routers):
    return set().union(*(r.truth() for r in routers))


def folds_to_truth(pipeline, routers, seconds=60, keep=lambda: True):
    """Waits until the fold of the stream is what the routers have. keep(): called while waiting."""
    last = {}

    def same():
        keep()
        last["want"], last["got"] = truth_of(routers), folded(pipeline)
        return last["want"] == last["got"]
    try:
        wait_for("the fold of the stream is what the routers have", same, seconds, 0.3)
    except AssertionError:
        want, got = last["want"], last["got"] or set()
        print(f"{len(want - got)} routes missing or other, {len(got - want)} extra or other", file=sys.stderr)
        for name, some in (("missing", want - got), ("extra", got - want)):
            for route in sorted(some)[:5]:
                print(f"{name}: {route}", file=sys.stderr)
        raise


def clean_audit(pipeline):
    audit = pipeline.audit()
    assert audit["gaps"] == 0 and audit["duplicates"] == 0 and audit["order_violations"] == 0, audit
    return audit["records"]


class StreamRules:
    """Reads all updates of the stream: what was announced as it was known already, and withdrawn though it was not known, is
    needless."""

    def __init__(self, pipeline):
        self.updates = self.announced = self.withdrawn = 0
        self.reasons, self.needless, table = {}, [], {}
        text = pipeline.aranctl("tail", "--nats", pipeline.nats, "--all", "--json", timeout=300).stdout
        # Within one router and family the stream is in order; different AS numbers of a peer are different subjects.
        for line in text.splitlines():
            u = json.loads(line)
            reason = u.get("reason", "none")
            self.updates += 1
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            key = (u["router"], u["peer"], u["peer_distinguisher"], u["view"], u["prefix"], u.get("path_id", 0))
            if u["announced"]:
                self.announced += 1
                value = json.dumps({k: u.get(k) for k in ("peer_asn", "origin", "as_path", "next_hop", "med", "local_pref",
                                                          "communities", "large_communities", "ext_communities")})
                if table.get(key) == value and reason != "dump":
                    self.needless.append(u)
                table[key] = value
            else:
                self.withdrawn += 1
                if table.pop(key, None) is None:
                    self.needless.append(u)

    def nothing_needless(self):
        assert not self.needless, (len(self.needless), self.needless[:3])
        return self
