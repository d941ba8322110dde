#!/usr/bin/env python3
"""A neighbour changes its AS number again and again, with the same prefixes: the withdraws under the old number and the
announcements under the new one are on different subjects, and yet the fold of the stream is right each time."""
import ipaddress
import socket
import struct

from harness import Pipeline, wait_for

ROUTER, PEER = "127.0.7.1", "10.0.0.1"
PREFIXES = [f"10.{i >> 8}.{i & 255}.0/24" for i in range(700)]
ROUNDS = 6


def message(kind, body):
    return struct.pack(">BIB", 3, 6 + len(body), kind) + body


def bgp(kind, body):
    return b"\xff" * 16 + struct.pack(">HB", 19 + len(body), kind) + body


def peer_header(asn):
    return struct.pack(">BBQ", 0, 0, 0) + bytes(12) + ipaddress.ip_address(PEER).packed + struct.pack(
        ">IIII", asn, 0x0a000001, 0, 0)


def open_message(asn):
    capabilities = struct.pack(">BBHBB", 1, 4, 1, 0, 1) + struct.pack(">BBI", 65, 4, asn)
    return bgp(1, struct.pack(">BHHIBBB", 4, asn, 180, 0x0a000001, len(capabilities) + 2, 2, len(capabilities))
               + capabilities)


def peer_up(asn):
    return message(3, peer_header(asn) + bytes(16) + struct.pack(">HH", 179, 40000) + open_message(65000)
                   + open_message(asn))


def peer_down(asn):
    return message(2, peer_header(asn) + b"\x02\x00\x00")


def table(asn, med):
    out = b""
    attributes = (b"\x40\x01\x01\x00" + struct.pack(">BBBBBI", 0x40, 2, 6, 2, 1, asn) + b"\x40\x03\x04"
                  + ipaddress.ip_address("192.0.2.1").packed + struct.pack(">BBBI", 0x80, 4, 4, med))
    for at in range(0, len(PREFIXES), 50):
        nlri = b"".join(b"\x18" + ipaddress.ip_network(p).network_address.packed[:3] for p in PREFIXES[at:at + 50])
        out += message(0, peer_header(asn) + bgp(2, struct.pack(">HH", 0, len(attributes)) + attributes + nlri))
    return out


def main():
    with Pipeline(shards=1) as pipeline, socket.create_connection(pipeline.bmp_address,
                                                                  source_address=(ROUTER, 0)) as router:
        router.sendall(message(4, struct.pack(">HH", 2, 1) + b"r"))
        asn, down = 65001, b""
        for number in range(ROUNDS):
            # With Peer Down, and without: then the collector finds out from Peer Up.
            router.sendall(down + peer_up(asn) + table(asn, number))
            expected = {(p, asn, number) for p in PREFIXES}
            told = {}

            def right():
                told["now"] = [(r["prefix"], r["as_path"][0], r["med"]) for r in pipeline.fold()]
                return sorted(told["now"]) == sorted(expected)  # noqa: B023: called at once
            try:
                wait_for("the fold is right", right, 20, 0.2)
            except AssertionError:
                now = set(told["now"])
                raise AssertionError(f"round {number}, AS {asn}: {len(expected - now)} routes are missing, "
                                     f"{len(now - expected)} should not be there") from None
            down = peer_down(asn) if number % 2 == 0 else b""
            asn = 65002 if asn == 65001 else 65001
        audit = pipeline.audit()
        assert audit["gaps"] == 0 and audit["duplicates"] == 0, audit
        print(f"{ROUNDS} AS numbers in turn, {len(PREFIXES)} routes right each time")


if __name__ == "__main__":
    main()
