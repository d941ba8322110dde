#!/usr/bin/env python3
"""Real routers (GoBGP and FRR) in network namespaces send BMP to the whole pipeline; after each step `aranctl fold` must
equal the router's own table, as its CLI shows it."""
import json
import os
import shutil
import subprocess

from harness import Pipeline, binary, skip, wait_for

LAB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lab", "run_lab.sh")
GOBGP, FRR = "10.99.7.1", "10.99.7.2"
FRR_AS = 65002
PREFIX = f"arx{os.getpid() % 10000}"
# FRR's own inbound policy of the lab denies this one; FRR 8 then sends a withdraw in pre-policy too, though its CLI keeps
# showing the route under received-routes.
DENIED = "203.0.113.0/24"


def lab(*args, check=True):
    env = dict(os.environ, LAB_PFX=PREFIX, LAB_DIR=f"/tmp/{PREFIX}", LAB_MODE="netns")
    r = subprocess.run(["bash", LAB, *args], capture_output=True, text=True, env=env, timeout=60)
    if check and r.returncode != 0:
        raise AssertionError(f"run_lab.sh {' '.join(args)}: {r.stdout}{r.stderr}")
    return r.stdout


def gobgp_json(*args):
    text = lab("gobgp", *args, "-j", check=False)
    try:
        answer = json.loads(text) or {}
    except ValueError:
        return {}
    # A neighbour that is down has no table: {"error": …}.
    return {} if "error" in answer else answer


def gobgp_paths(paths):
    """{(prefix, as path, med, communities)} of `gobgp … -j`."""
    out = set()
    for prefix, entries in paths.items():
        for path in entries:
            attrs = {a["type"]: a for a in path["attrs"]}
            as_path = tuple(n for s in attrs.get(2, {}).get("as_paths", []) for n in s["asns"])
            communities = tuple(f"{c >> 16}:{c & 0xffff}" for c in attrs.get(8, {}).get("communities", []))
            out.add((prefix, as_path, attrs.get(4, {}).get("metric", 0), communities))
    return out


def gobgp_truth():
    tables = {}
    for afi, name in ((1, "ipv4"), (2, "ipv6")):
        # GoBGP lists its own routes that FRR sends back; they are looped, so they are in no table and not in BMP.
        received = gobgp_paths(gobgp_json("neighbor", FRR, "adj-in", "-a", name))
        tables["adj-in-pre", afi] = {r for r in received if 65001 not in r[1]}
        rib = gobgp_json("global", "rib", "-a", name)
        best = {p: [e for e in entries if e.get("best")] for p, entries in rib.items()}
        tables["loc-rib", afi] = gobgp_paths(best)
    return tables


def vtysh_json(command):
    text = lab("vtysh", command, check=False)
    try:
        return json.loads(text)
    except ValueError:
        return {}


def frr_truth():
    tables = {}
    for afi, name in ((1, "ipv4"), (2, "ipv6")):
        # FRR shows no table of a neighbour that is down, and gives an error text instead of JSON.
        received = vtysh_json(f"show bgp {name} unicast neighbors {GOBGP} received-routes json")
        out = set()
        for prefix, r in received.get("receivedRoutes", {}).items():
            if prefix != DENIED:
                out.add((prefix, tuple(int(a) for a in r.get("path", "").split()), r.get("metric", 0)))
        tables["adj-in-pre", afi] = out
        accepted = vtysh_json(f"show bgp {name} unicast neighbors {GOBGP} routes json")
        out = set()
        for prefix, paths in accepted.get("routes", {}).items():
            for r in paths:
                out.add((prefix, tuple(int(a) for a in r.get("path", "").split()), r.get("metric", 0)))
        tables["adj-in-post", afi] = out
    return tables


def fold_tables(routes, router, with_communities):
    tables = {}
    for r in routes:
        if r["router"] != router or r["safi"] != 1:
            continue
        path = tuple(r.get("as_path", []))
        if router == FRR and path[:1] == (FRR_AS,):
            path = path[1:]  # FRR's BMP prepends its own AS to what it got from an eBGP neighbour
        entry = (r["prefix"], path, r.get("med", 0))
        if with_communities:
            entry += (tuple(r.get("communities", [])),)
        if router == FRR and r["peer"] == "0.0.0.0":
            continue  # FRR 8 reports its own routes in the dump only, not when they change
        view = r["view"]
        tables.setdefault((view, r["afi"]), set()).add(entry)
    return tables


def check(pipeline, step, from_frr=5):
    """fold equals both routers' own tables, soon, and GoBGP has got that many IPv4 routes from FRR by then."""
    seen = {}

    def equal():
        if len(gobgp_truth()["adj-in-pre", 1]) != from_frr:
            seen["why"] = ("gobgp has not got", from_frr, "routes from FRR yet")
            return False
        routes = pipeline.fold()
        for name, router, truth, communities in (("gobgp", GOBGP, gobgp_truth(), True), ("frr", FRR, frr_truth(), False)):
            got = fold_tables(routes, router, communities)
            for key, want in truth.items():
                if got.get(key, set()) != want:
                    seen["why"] = (name, key, "missing", sorted(want - got.get(key, set()))[:5],
                                   "extra", sorted(got.get(key, set()) - want)[:5])
                    return False
            seen[name] = {k: len(v) for k, v in truth.items()}
        return True
    try:
        wait_for(step, equal, 40, 0.3)
    except AssertionError:
        raise AssertionError(f"{step}: {seen.get('why')}") from None
    print(f"ok: {step}: gobgp {seen['gobgp']} frr {seen['frr']}")


def established():
    return "establ" in lab("gobgp", "neighbor", check=False).lower()


def main():
    if os.geteuid() != 0:
        skip("needs root for network namespaces")
    for tool in ("gobgpd", "gobgp", "ip", "vtysh"):
        if not shutil.which(tool):
            skip(f"{tool} is not installed")
    if subprocess.run(["ip", "netns", "add", PREFIX + "t"], capture_output=True).returncode != 0:
        skip("network namespaces cannot be made here")
    subprocess.run(["ip", "netns", "del", PREFIX + "t"], check=True)
    lab("prep")
    try:
        with Pipeline(shards=2, bmp="10.99.7.200:4000", prefix=("ip", "netns", "exec", PREFIX + "-c"),
                      settings={"curation": {"session_grace_s": 3.0}}) as pipeline:
            lab("up", "10.99.7.200:4000", "frr", "5")
            check(pipeline, "initial tables")

            lab("gobgp", "global", "rib", "add", "198.51.100.250/32", "nexthop", GOBGP)
            check(pipeline, "announce")

            before = pipeline.audit()["records"]
            lab("gobgp", "global", "rib", "add", "198.51.100.250/32", "nexthop", GOBGP, "med", "99", "community", "65001:77")
            check(pipeline, "change of attributes")
            lab("gobgp", "global", "rib", "add", "198.51.100.250/32", "nexthop", GOBGP, "aspath", "65077,65078")
            check(pipeline, "change of the AS path")
            changes = [u for u in updates(pipeline) if u["prefix"] == "198.51.100.250/32" and u["router"] == FRR and
                       u["view"] == "adj-in-post" and u["announced"]]
            paths = [tuple(u["as_path"]) for u in changes]
            assert (FRR_AS, 65001) in paths and (FRR_AS, 65001, 65077, 65078) in paths, f"path change not in the stream: {paths}"
            assert pipeline.audit()["records"] > before

            lab("gobgp", "global", "rib", "del", "198.51.100.250/32")
            check(pipeline, "withdraw")

            lab("vtysh", "configure terminal", "router bgp 65002", "address-family ipv4 unicast", "network 192.0.2.128/25")
            check(pipeline, "announce from FRR", 6)
            lab("vtysh", "configure terminal", "router bgp 65002", "address-family ipv4 unicast", "no network 192.0.2.128/25")
            check(pipeline, "withdraw from FRR")

            lab("gobgp", "neighbor", FRR, "disable")
            wait_for("the peer is down", lambda: not established(), 20)
            check(pipeline, "peer dropped", 0)
            downs = [u for u in updates(pipeline) if u["synthetic"] and u["reason"] == "peerDown"]
            assert downs, "no synthetic withdraw for the peer that went down"
            lab("gobgp", "neighbor", FRR, "enable")
            wait_for("the peer is up again", established, 30)
            check(pipeline, "peer back")

            lab("restart", "second")
            wait_for("the peer is up after FRR's restart", established, 40)
            check(pipeline, "FRR restarted")
            lab("restart", "second", "KILL")
            wait_for("the peer is up after FRR's crash", established, 40)
            check(pipeline, "FRR killed and restarted")
            lab("restart", "gobgp")
            wait_for("the peer is up after GoBGP's restart", established, 40)
            check(pipeline, "GoBGP restarted")

            audit = pipeline.audit()
            assert audit["gaps"] == 0 and audit["duplicates"] == 0, audit
            print(f"audit: {audit['records']} updates, no gap, no duplicate")
    finally:
        lab("down", check=False)


def updates(pipeline):
    r = pipeline.command(binary("aranctl"), "tail", "--nats", pipeline.nats, "--all", "--json")
    return [json.loads(line) for line in r.stdout.splitlines()]


if __name__ == "__main__":
    main()
