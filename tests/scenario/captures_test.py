#!/usr/bin/env python3
"""Plays every recorded session (tests/captures) through the whole pipeline, mark by mark, all at once from addresses of
their own, and compares `aranctl fold` at each mark with (1) an independent reading of the same bytes, attributes and
all, and (2) the prefixes that the router's own CLI showed at that moment."""
import collections
import glob
import ipaddress
import json
import lzma
import os
import re
import socket
import sys

import bmp_reference
from harness import Pipeline, wait_for

CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "captures")
PEERS = ("10.99.0.11", "fd99::12", "10.99.0.13")


def load(name):
    path = os.path.join(CAPTURES, name)
    if os.path.exists(path):
        with open(path, "rb") as f:
            return f.read()
    with lzma.open(path + ".xz") as f:
        return f.read()


class Capture:
    def __init__(self, base, source):
        self.base, self.source = base, source
        self.kind = base.split("-")[0]
        self.mode = base.rsplit("-", 1)[1]
        self.marks = json.loads(load(base + ".marks.json"))
        self.truth = json.loads(load(base + ".truth.json"))
        self.sessions = {}  # name -> bytes, open time, close time
        several = glob.glob(os.path.join(CAPTURES, base + "-s*.bmp*"))
        names = sorted({re.search(r"-(s\d+)\.bmp", f).group(1) for f in several}, key=lambda n: int(n[1:])) or ["s1"]
        for name in names:
            stem = f"{base}-{name}" if several else base
            lines = [json.loads(x) for x in load(stem + ".idx.jsonl").splitlines()]
            closed = lines[-1]["ts"] if "close" in lines[-1] else float("inf")
            self.sessions[name] = (load(stem + ".bmp"), lines[0]["ts"], closed)
        self.sockets, self.sent, self.references = {}, collections.Counter(), {}

    def path_ids(self, peer, afi):
        # BIRD is the only one of the three that negotiates ADD-PATH with this neighbour and means it.
        plain = ("oddattrs", "as2", "extmsg", "gr")
        return self.kind == "bird217" and not any(x in self.base for x in plain) and peer.address == "10.99.0.13"

    def play_to(self, index, address):
        """Sends what the router had sent at mark `index`; closes what it had closed by then."""
        mark = self.marks[index]
        for name, (data, opened, closed) in self.sessions.items():
            size = mark["sizes"].get(name, 0)
            if closed <= mark["ts"]:
                size = len(data)
            if size == 0 and name not in self.sockets:
                continue
            if name not in self.sockets:
                self.sockets[name] = socket.create_connection(address, source_address=(self.source, 0))
                self.references[name] = bmp_reference.Session(self.source, self.path_ids)
            if self.sockets[name] is None:
                continue
            chunk = data[self.sent[name]:size]
            self.sockets[name].sendall(chunk)
            self.sent[name] += len(chunk)
            self.references[name].table.clear()
            self.references[name].feed(data[:self.sent[name]])
            if closed <= mark["ts"]:
                self.sockets[name].close()
                self.sockets[name] = None
                del self.references[name]

    def expected(self):
        routes = []
        for reference in self.references.values():
            routes += reference.routes()
        return routes

    def close(self):
        for s in self.sockets.values():
            if s:
                s.close()


def normal(prefix):
    try:
        return str(ipaddress.ip_network(prefix, strict=False))
    except ValueError:
        return prefix


def truth_sets(kind, truth):
    """{(peer, view, afi): prefixes} by the router's own CLI."""
    out = {}
    for peer in PEERS:
        for afi, name in ((1, "ipv4"), (2, "ipv6")):
            if kind.startswith("frr"):
                for key, view, field in (("received-routes", "adj-in-pre", "receivedRoutes"),
                                         ("routes", "adj-in-post", "routes")):
                    answer = truth.get(f"show bgp {name} unicast neighbors {peer} {key} json")
                    if isinstance(answer, dict):
                        out[peer, view, afi] = {normal(p) for p in answer.get(field, {})}
            elif kind.startswith("gobgp"):
                answer = truth.get(f"neighbor {peer} adj-in -a {name}")
                if isinstance(answer, dict):
                    out[peer, "adj-in-pre", afi] = {normal(p) for p in answer}
            else:
                letter = {"10.99.0.11": "A", "fd99::12": "B", "10.99.0.13": "C"}[peer]
                answer = truth.get(f"show route all import table p{letter}.{name}")
                if answer:
                    out[peer, "adj-in-pre", afi] = {normal(p) for p in re.findall(r"^([0-9a-f:.]+/\d+)", answer, re.M)}
    if kind.startswith("gobgp"):
        for afi, name in ((1, "ipv4"), (2, "ipv6")):
            answer = truth.get(f"global rib -a {name}")
            if isinstance(answer, dict):
                out["loc-rib", "loc-rib", afi] = {normal(p) for p in answer}
    return out


def reported(mode, view):
    """Does this recording carry that view?"""
    return {"adj-in-pre": mode not in ("post", "loc"), "adj-in-post": mode not in ("pre", "loc"),
            "loc-rib": mode in ("all", "loc")}[view]


def router_hides(capture, peer, view, missing, extra):
    """Why the router's BMP and its CLI disagree; None if there is no known reason."""
    denied = [ipaddress.ip_network(n) for n in ("203.0.113.0/24", "2001:db8:dead::/48")]
    if capture.kind == "frr8":
        if view == "adj-in-pre" and not extra and missing:
            inside = all(any(ipaddress.ip_network(p).version == d.version and ipaddress.ip_network(p).subnet_of(d)
                             for d in denied) for p in missing)
            if inside:
                return "FRR 8 withdraws in pre-policy what its inbound policy denies"
        if capture.base.startswith("frr8-peerflap") and peer == "fd99::12" and not missing:
            return "FRR 8 sends nothing when a neighbour is deleted"
        if capture.base.startswith("frr8-nosoft"):
            return "FRR 8 without soft-reconfiguration shows announcements as withdraws"
        if capture.base.startswith("frr8-oddattrs"):
            return "FRR 8 withdraws in pre-policy what it treats as withdrawn or denies"
    if not capture.references and not extra:
        return "the router has no session with the collector at that moment"
    if capture.kind == "gobgp310":
        if capture.base == "gobgp310-initial-both" and not extra:
            return "GoBGP 3.10 with policy 'both' sends no dump"
        if missing == {"9.9.9.0/24"} and not extra:
            return "GoBGP shows a withdrawn, never announced prefix in adj-in"
    return None


def main():
    bases = sorted(os.path.basename(f)[:-len(".marks.json")] for f in glob.glob(os.path.join(CAPTURES, "*.marks.json")))
    assert len(bases) > 30, "recordings are missing"
    captures = [Capture(b, f"127.0.2.{i + 1}") for i, b in enumerate(bases)]
    compared = equal = attribute_tables = 0
    excused, failures = collections.Counter(), []
    with Pipeline(shards=2) as pipeline:
        for index in range(max(len(c.marks) for c in captures)):
            active = [c for c in captures if index < len(c.marks)]
            for c in active:
                c.play_to(index, pipeline.bmp_address)
            state = {}

            def settled():
                by_router = collections.defaultdict(list)
                for r in pipeline.fold():
                    if r["safi"] == 1 and r["afi"] in (1, 2):
                        by_router[r["router"]].append(r)
                state["fold"] = by_router
                state["wrong"] = [c for c in active if bmp_reference.comparable(by_router[c.source]) !=
                                  bmp_reference.comparable(c.expected())]
                return not state["wrong"]
            try:
                wait_for("settled", settled, 20, 0.3)
            except AssertionError:
                for c in state["wrong"]:
                    got = bmp_reference.comparable(state["fold"][c.source])
                    want = bmp_reference.comparable(c.expected())
                    failures.append(f"{c.base} @{c.marks[index]['label']}: fold differs from an independent reading: "
                                    f"{len(want - got)} missing {sorted(want - got)[:2]}, "
                                    f"{len(got - want)} extra {sorted(got - want)[:2]}")
            attribute_tables += len(active)
            for c in active:
                mark = c.marks[index]
                if mark["label"] not in c.truth or not mark["sizes"]:
                    continue
                for (peer, view, afi), want in truth_sets(c.kind, c.truth[mark["label"]]).items():
                    if not reported(c.mode, view):
                        continue
                    got = {r["prefix"] for r in state["fold"][c.source]
                           if r["view"] == view and r["afi"] == afi and (peer == "loc-rib" or r["peer"] == peer)}
                    compared += 1
                    if got == want:
                        equal += 1
                        continue
                    why = router_hides(c, peer, view, want - got, got - want)
                    if why:
                        excused[why] += 1
                    else:
                        failures.append(f"{c.base} @{mark['label']}: {peer} {view} afi {afi}: "
                                        f"missing {sorted(want - got)[:4]} extra {sorted(got - want)[:4]}")
        for c in captures:
            c.close()
        audit = pipeline.audit()
        if audit["gaps"] or audit["duplicates"]:
            failures.append(f"audit: {audit}")
    print(f"{len(captures)} recordings, {attribute_tables} tables with attributes compared with an independent reading")
    print(f"{compared} tables compared with the router's CLI: {equal} equal, {sum(excused.values())} where the router "
          "does not report what its CLI shows:")
    for why, n in excused.most_common():
        print(f"  {n:4} {why}")
    for f in failures[:40]:
        print("FAILED:", f)
    assert not failures, f"{len(failures)} differences"
    assert compared > 1000


if __name__ == "__main__":
    main()
