"""Routers that talk to the collector of a booted system from this process, without an end: whether their sessions outlive the
collector's processes, by their own view and by the sockets."""
import json
import os
import re
import socket
import sys
import types

from booted import wait_for

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))
import bmp_router  # noqa: E402


class Stream:
    """What is in NATS about these routers, for the rules of bmp_router."""

    def __init__(self, system, nats, addresses):
        self.b, self.nats, self.addresses = system, nats, addresses

    def aranctl(self, *argv, check=True, timeout=60):
        done = self.b.run("aranctl", *argv, check=check, timeout=timeout)
        ours = [line for line in done.stdout.splitlines() if json.loads(line)["router"] in self.addresses]
        return types.SimpleNamespace(returncode=done.returncode, stderr=done.stderr, stdout="".join(x + "\n" for x in ours))

    def audit(self):
        return json.loads(self.b.run("aranctl", "audit", "--nats", self.nats, "--json").stdout)

    def events(self):
        text = self.aranctl("tail", "--nats", self.nats, "--events", "--all", "--json").stdout
        return [json.loads(line)["kind"] for line in text.splitlines()]


class KeptSessions:
    PEERS = 2

    def __init__(self, system, nats, target, network, number=8, silent=0):
        """network: the first three bytes of the routers' addresses. silent: that many more sessions never say a word."""
        self.b, self.target = system, target
        self.routers = [bmp_router.Router(f"{network}.{i + 1}", self.PEERS, prefixes=200) for i in range(number)]
        self.stream = Stream(system, nats, {r.address for r in self.routers})
        with self.b.network():
            for r in self.routers:
                r.connect(target)
            self.silent = [socket.create_connection(target, source_address=(f"{network}.{100 + i % 100}", 0)) for i in range(silent)]
            self.churn = bmp_router.Churn(self.routers, lambda: target, pause=0.05, flaps=0)
        wait_for("ingestd has them all", self.all_taken)
        self.before = self.inodes()

    def sockets(self):
        """{address and port of a router: (inode of the collector's socket, pid of who has it or None)}"""
        out = {}
        for line in self.b.run("ss", "-tnHep", "state", "established", f"sport = :{self.target[1]}").stdout.splitlines():
            pid = re.search(r"pid=(\d+)", line)
            out[line.split()[3]] = int(re.search(r"ino:(\d+)", line).group(1)), int(pid.group(1)) if pid else None
        return out

    def all_taken(self):
        sockets = self.sockets()
        return len(sockets) == len(self.routers) + len(self.silent) and all(pid for _, pid in sockets.values())

    def inodes(self):
        return {remote: inode for remote, (inode, _) in self.sockets().items()}

    def remotes_of(self, pid):
        """Whose sockets that process has."""
        return {remote for remote, (_, owner) in self.sockets().items() if owner == pid}

    def of(self, pid):
        """Those of them that are not silent."""
        remotes = self.remotes_of(pid)
        return [r for r in self.routers if r.socket and "%s:%d" % r.socket.getsockname() in remotes]

    def same(self):
        """As it began, for the routers and by the sockets."""
        assert not self.churn.failures, self.churn.failures
        assert all(r.reconnects == 1 for r in self.routers), {r.address: r.reconnects for r in self.routers}
        assert self.inodes() == self.before, (self.before, self.inodes())
        return True

    def messages(self):
        """{router: how many ingestd has read}; those that it shows."""
        rows = json.loads(self.b.run("aranctl", "routers", "--json").stdout)["routers"]
        return {r["address"]: int(r["messages"]) for r in rows if r["address"] in self.stream.addresses}

    def heard(self):
        """Until each of them is read again."""
        before = {r.address: 0 for r in self.routers} | self.messages()

        def all_read():
            now = self.messages()
            return all(now.get(address, 0) > count for address, count in before.items())
        wait_for("all routers are read", all_read)

    def finish(self):
        """Ends the churn: the stream has all of it, once. Returns what it holds of these routers."""
        self.churn.finish()
        return self.whole()

    def whole(self):
        bmp_router.folds_to_truth(self.stream, self.routers)
        bmp_router.clean_audit(self.stream)
        return bmp_router.StreamRules(self.stream).nothing_needless()

    def reconnect(self, routers):
        with self.b.network():
            for r in routers:
                r.connect(self.target)

    def close(self):
        for r in self.routers + self.silent:
            r.close()
