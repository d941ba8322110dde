#!/usr/bin/env python3
"""Look-ups over two shards while routers churn; table dumps, and consumers that begin with them; a stream that is deleted while
everything runs: the new one folds to the same tables, and no router has said a word."""
import ipaddress
import json
from urllib.parse import urlparse

from harness import Load, Pipeline, check_stream, wait_for
from nats_servers import NatsClient


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def key(route):
    return json.dumps(route, sort_keys=True)


def same_routes(got, wanted, what):
    got, wanted = sorted(map(key, got)), sorted(map(key, wanted))
    assert got == wanted, f"{what}: {len(got)} routes, not {len(wanted)}; {got[:2]} / {wanted[:2]}"


def look_up(p, *args):
    return lines(p.aranctl("lookup", "--json", *args).stdout)


def check_lookups(p, truth):
    v4 = [r for r in truth if r["afi"] == 1]
    everything = look_up(p, "0.0.0.0/0", "--longer", "--limit", "0")
    same_routes(everything, v4, "all of IPv4")
    lengths = [int(r["prefix"].split("/")[1]) for r in everything]
    assert lengths == sorted(lengths, reverse=True), "longest first"
    prefix = v4[len(v4) // 2]["prefix"]
    exact = [r for r in v4 if r["prefix"] == prefix]
    same_routes(look_up(p, prefix, "--exact"), exact, f"exactly {prefix}")
    router = exact[0]["router"]
    same_routes(look_up(p, prefix, "--exact", "--router", router), [r for r in exact if r["router"] == router],
                f"{prefix} of {router}")
    # An address: of each table the most specific prefix that covers it.
    address = ipaddress.ip_network(prefix).network_address
    best = {}
    for r in v4:
        network = ipaddress.ip_network(r["prefix"])
        table = (r["router"], r["peer"], r["peer_distinguisher"], r["view"])
        if address in network and (table not in best or network.prefixlen > best[table][0].prefixlen):
            best[table] = (network, r)
    same_routes(look_up(p, str(address)), [r for _, r in best.values()], f"longest for {address}")
    cut = p.aranctl("lookup", "--json", "0.0.0.0/0", "--longer", "--limit", "5", check=False)
    assert cut.returncode == 3 and len(cut.stdout.splitlines()) <= 10, cut
    wrong = p.aranctl("lookup", "nonsense", check=False)
    assert wrong.returncode == 64 and "nonsense" in wrong.stderr, wrong


def from_dump(p):
    return p.aranctl("fold", "--from-dump", "--nats", p.nats, "--json", check=False)


def main():
    with Pipeline(shards=2) as p, Load(p, routers=3, peers=2, prefixes=3000, churn=3000, rate=30000) as load:
        wait_for("tables are told", lambda: p.metric("arancini_ingest_routes") >= 10000, 60, 0.2)
        nothing = from_dump(p)
        assert nothing.returncode == 3 and "no router has a complete dump" in nothing.stderr, nothing.stderr
        # In the middle of churn.
        marks = lines(p.aranctl("dump", "--json", "--nats", p.nats).stdout)
        assert sorted(m["router"] for m in marks) == ["127.0.5.1", "127.0.5.2", "127.0.5.3"], marks
        assert all(m["routes"] > 0 and 1 < m["from"] <= m["complete"] for m in marks), marks
        one = lines(p.aranctl("dump", "127.0.5.2", "--json", "--nats", p.nats).stdout)
        assert [m["router"] for m in one] == ["127.0.5.2"] and one[0]["from"] > max(m["from"] for m in marks), one
        unknown = p.aranctl("dump", "192.0.2.99", "--nats", p.nats, check=False)
        assert unknown.returncode == 64 and "192.0.2.99" in unknown.stderr, unknown.stderr

        load.finish()
        check_stream(p, load)
        truth = lines("\n".join(load.truth))
        folded = from_dump(p)
        assert folded.returncode == 0, folded.stderr
        assert folded.stdout.splitlines() == load.truth, "a consumer that begins with the dump has the tables"
        check_lookups(p, truth)
        shards = p.status()["shards"]
        assert all(s["control_error"] == "" for s in shards), shards

        # The stream is gone, and so is what consumers were told.
        before = p.metric("arancini_ingest_received_bytes_total")
        url = urlparse(p.nats)
        with NatsClient(url.hostname, url.port) as client:
            client.js("STREAM.DELETE.ARANCINI_UPDATES")
        # publishd finds that out with the next message that it sends.
        p.aranctl("dump", "127.0.5.1", "--nats", p.nats, check=False)

        def told_again():
            folded = from_dump(p)
            return folded.returncode == 0 and folded.stdout.splitlines() == load.truth
        wait_for("the new stream has the tables", told_again, 90, 0.5)
        # Also from its very beginning.
        whole = p.aranctl("fold", "--nats", p.nats, "--json", check=False)
        assert whole.stdout.splitlines() == load.truth
        assert p.metric("arancini_ingest_received_bytes_total") == before, "no router has said anything"
        kinds = [e["kind"] for e in lines(p.aranctl("events", "--nats", p.nats, "--json").stdout)]
        assert kinds.count("stream_epoch") == 1 and kinds.count("dump_end") >= 3 + 1 + 3, kinds
        load.alive()


if __name__ == "__main__":
    main()
