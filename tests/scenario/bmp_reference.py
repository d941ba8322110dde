"""An independent reading of BMP bytes, for tests: nothing here comes from the C++ code. Folds a session into the table that
must come out, in the keys of `aranctl fold --json` (IPv4/IPv6 unicast)."""
import ipaddress
import struct


def messages(data):
    """(offset, type, message) of each whole message."""
    at = 0
    while at + 6 <= len(data):
        version, length, kind = struct.unpack_from(">BIB", data, at)
        if version != 3 or length < 6:
            raise ValueError(f"bad BMP header at {at}")
        if at + length > len(data):
            return
        yield at, kind, data[at:at + length]
        at += length


class Peer:
    def __init__(self, m):
        self.type, self.flags = m[6], m[7]
        self.distinguisher = int.from_bytes(m[8:16], "big")
        raw = m[16:32]
        v6 = self.flags & 0x80 and self.type != 3
        self.address = str(ipaddress.IPv6Address(raw)) if v6 else str(ipaddress.IPv4Address(raw[12:]))
        if not v6 and self.type == 3 and raw == bytes(16):
            self.address = "0.0.0.0"
        self.asn = struct.unpack_from(">I", m, 32)[0]
        self.key = (self.type, self.distinguisher, self.address)
        if self.type == 3:
            self.view = "loc-rib"
        elif self.flags & 0x10:
            self.view = "adj-out-post" if self.flags & 0x40 else "adj-out-pre"
        else:
            self.view = "adj-in-post" if self.flags & 0x40 else "adj-in-pre"
        self.as2 = bool(self.flags & 0x20) and self.type != 3


def parse_prefixes(data, afi, path_ids):
    """[(prefix, path id)], or None when it does not parse that way."""
    width = 32 if afi == 1 else 128
    out, at = [], 0
    while at < len(data):
        path_id = 0
        if path_ids:
            if at + 4 > len(data):
                return None
            path_id = struct.unpack_from(">I", data, at)[0]
            at += 4
        if at >= len(data):
            return None
        length = data[at]
        size = (length + 7) // 8
        if length > width or at + 1 + size > len(data):
            return None
        value = int.from_bytes(data[at + 1:at + 1 + size].ljust(width // 8, b"\0"), "big")
        if length < width:
            value = value >> (width - length) << (width - length)
        cls = ipaddress.IPv4Network if afi == 1 else ipaddress.IPv6Network
        out.append((str(cls((value, length))), path_id))
        at += 1 + size
    return out


def as_segments(data, width):
    out, at = [], 0
    while at < len(data):
        if at + 2 > len(data):
            return None
        kind, count = data[at], data[at + 1]
        at += 2
        if kind not in (1, 2, 3, 4) or at + count * width > len(data):
            return None
        out.append((kind, [int.from_bytes(data[at + i * width:at + (i + 1) * width], "big") for i in range(count)]))
        at += count * width
    return out


def attributes(data):
    at = 0
    while at < len(data):
        flags, kind = data[at], data[at + 1]
        if flags & 0x10:
            size, head = struct.unpack_from(">H", data, at + 2)[0], 4
        else:
            size, head = data[at + 2], 3
        if at + head + size > len(data):
            raise ValueError("attribute overruns")
        yield flags, kind, data[at + head:at + head + size]
        at += head + size


def path_json(segments):
    out = []
    for kind, members in segments:
        if kind == 2:
            out += members
        elif kind == 1:
            out.append(members)
        else:
            out.append({"confed_sequence" if kind == 3 else "confed_set": members})
    return out


def next_hop(data):
    if len(data) in (4,):
        return str(ipaddress.IPv4Address(data))
    if len(data) in (16, 32):
        a = ipaddress.IPv6Address(data[:16])
        return str(a.ipv4_mapped or a)
    return None


ORIGINS = {0: "IGP", 1: "EGP", 2: "INCOMPLETE"}


def describe(attrs, as2, mp_hop):
    """Path attributes as fold prints them."""
    out = {}
    by = {}
    for _, kind, value in attrs:
        by.setdefault(kind, value)
    if 1 in by and len(by[1]) == 1:
        out["origin"] = ORIGINS.get(by[1][0])
    if 2 in by:
        segments = as_segments(by[2], 2 if as2 else 4)
        used2 = as2
        if segments is None:
            segments, used2 = as_segments(by[2], 4 if as2 else 2), not as2
        if used2 and 17 in by and segments is not None:
            new = as_segments(by[17], 4) or []
            length = lambda ss: sum(1 if k == 1 else len(m) if k == 2 else 0 for k, m in ss)  # noqa: E731
            lead = length(segments) - length(new)
            if lead >= 0:
                merged = []
                for kind, members in segments:
                    if lead <= 0:
                        break
                    if kind == 2:
                        merged.append((2, members[:lead]))
                        lead -= len(members[:lead])
                    elif kind == 1:
                        merged.append((kind, members))
                        lead -= 1
                    else:
                        merged.append((kind, members))
                segments = merged + new
        out["as_path"] = path_json(segments or [])
    hop = next_hop(mp_hop) if mp_hop is not None else next_hop(by.get(3, b""))
    if hop:
        out["next_hop"] = hop
    if 4 in by and len(by[4]) == 4:
        out["med"] = int.from_bytes(by[4], "big")
    if 5 in by and len(by[5]) == 4:
        out["local_pref"] = int.from_bytes(by[5], "big")
    if by.get(8):
        out["communities"] = [f"{a}:{b}" for a, b in struct.iter_unpack(">HH", by[8])]
    if by.get(32):
        out["large_communities"] = [f"{a}:{b}:{c}" for a, b, c in struct.iter_unpack(">III", by[32])]
    if by.get(16):
        out["ext_communities"] = [by[16][i:i + 8].hex() for i in range(0, len(by[16]), 8)]
    return out


SIZES = {1: 1, 3: 4, 4: 4, 5: 4, 9: 4}
MULTIPLES = {8: 4, 10: 4, 16: 8, 32: 12}


def treat_as_withdraw(attrs):
    """RFC 7606 section 7, as far as the recordings need it."""
    for _, kind, value in attrs:
        if kind in SIZES and len(value) != SIZES[kind]:
            return True
        if kind == 1 and value[0] > 2:
            return True
        if kind in MULTIPLES and (len(value) % MULTIPLES[kind] or not value):
            return True
        if kind == 2 and as_segments(value, 4) is None and as_segments(value, 2) is None:
            return True
    return False


class Session:
    """Folds messages of one router. `path_ids(peer, afi)`: the expected ADD-PATH encoding; where only the other way
    parses, that is taken."""

    def __init__(self, router, path_ids=lambda peer, afi: False):
        self.router = router
        self.path_ids = path_ids
        self.table = {}
        self.names = {}

    def prefixes(self, data, peer, afi):
        want = self.path_ids(peer, afi)
        got = parse_prefixes(data, afi, want)
        if got is None:
            got = parse_prefixes(data, afi, not want)
        return got or []

    def drop(self, key):
        for k in [k for k in self.table if k[0] == key]:
            del self.table[k]

    def feed(self, data):
        for _, kind, m in messages(data):
            if kind in (2, 3):
                peer = Peer(m)
                if kind == 2:
                    self.drop(peer.key)
            elif kind == 0:
                self.route_monitoring(Peer(m), m[48:])

    def route_monitoring(self, peer, pdu):
        size = struct.unpack_from(">H", pdu, 16)[0]
        body = pdu[19:size]
        wlen = struct.unpack_from(">H", body)[0]
        withdrawn = body[2:2 + wlen]
        alen = struct.unpack_from(">H", body, 2 + wlen)[0]
        attrs = list(attributes(body[4 + wlen:4 + wlen + alen]))
        announced = body[4 + wlen + alen:]
        for prefix in self.prefixes(withdrawn, peer, 1):
            self.table.pop((peer.key, peer.view, 1, prefix), None)
        for _, kind, value in attrs:
            if kind == 15:
                afi, safi = struct.unpack_from(">HB", value)
                if safi == 1 and afi in (1, 2):
                    for prefix in self.prefixes(value[3:], peer, afi):
                        self.table.pop((peer.key, peer.view, afi, prefix), None)
        plain = [a for a in attrs if a[1] not in (14, 15)]
        bad = treat_as_withdraw(plain)
        if announced and bad:
            for prefix in self.prefixes(announced, peer, 1):
                self.table.pop((peer.key, peer.view, 1, prefix), None)
        elif announced:
            about = describe(plain, peer.as2, None)
            for prefix in self.prefixes(announced, peer, 1):
                self.table[(peer.key, peer.view, 1, prefix)] = (peer.asn, about)
        for _, kind, value in attrs:
            if kind == 14:
                afi, safi = struct.unpack_from(">HB", value)
                hop = value[4:4 + value[3]]
                if safi == 1 and afi in (1, 2):
                    about = describe(plain, peer.as2, hop)
                    for prefix in self.prefixes(value[5 + len(hop):], peer, afi):
                        if bad:
                            self.table.pop((peer.key, peer.view, afi, prefix), None)
                            continue
                        self.table[(peer.key, peer.view, afi, prefix)] = (peer.asn, about)

    def routes(self):
        out = []
        for (key, view, afi, (prefix, path_id)), (asn, about) in self.table.items():
            out.append({"router": self.router, "peer": key[2], "peer_asn": asn,
                        "peer_distinguisher": f"{key[1] >> 32}:{key[1] & 0xffffffff}", "view": view, "afi": afi,
                        "safi": 1, "prefix": prefix, "path_id": path_id, **about})
        return out


def comparable(routes, drop=()):
    """A set of routes, for comparison without order."""
    out = set()
    for r in routes:
        out.add(tuple(sorted((k, repr(v)) for k, v in r.items() if k not in drop)))
    return out
