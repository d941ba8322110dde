#!/usr/bin/env python3
"""The status page in a real Chromium (what it shows, that it asks for nothing else, that the picture is not blank) and in a text
browser, on a pipeline whose routers have what makes operators ask: refused, silent, only introduced, peers without routes.
With an argument: the file that keeps the screenshot."""
import html.parser
import http.client
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import zlib

import bmp_router
from harness import Pipeline, skip, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTH, HEIGHT = 1180, 1560


def main():
    if not CHROMIUM:
        skip("chromium is not installed")
    if not shutil.which("w3m"):
        skip("w3m is not installed")
    settings = {"bmp": {"allow": ["127.0.2.0/24"]}, "instance": {"name": "lab"}}
    with Pipeline(settings=settings) as p:
        routers = Routers(p)
        try:
            check(p, routers, sys.argv[1] if len(sys.argv) > 1 else None)
        finally:
            routers.close()


class Routers:
    """One for each condition; those of CONDITIONS are looked for by address."""
    CONDITIONS = {"127.0.2.1": "receiving", "127.0.2.2": "silent", "127.0.2.3": "no-peers", "127.0.2.4": "no-routes",
                  "127.0.2.5": "lost", "127.0.9.9": "refused"}

    def __init__(self, pipeline):
        self.all = []
        self.well = self.add(bmp_router.Router("127.0.2.1", prefixes=400), pipeline)
        self.silent = self.raw(pipeline, "127.0.2.2", b"")
        self.raw(pipeline, "127.0.2.3", initiation(b"<b>core-3</b>"))
        self.add(bmp_router.Router("127.0.2.4", peers=3, prefixes=0), pipeline)
        self.add(bmp_router.Router("127.0.2.5", peers=1, prefixes=20), pipeline).disconnect()
        self.raw(pipeline, "127.0.9.9", initiation(b"stranger"))

    def add(self, router, pipeline):
        self.all.append(router)
        router.connect(pipeline.bmp_address)
        return router

    def raw(self, pipeline, address, data):
        s = socket.create_connection(pipeline.bmp_address, timeout=30, source_address=(address, 0))
        self.all.append(s)
        s.sendall(data)
        return s

    def close(self):
        for r in self.all:
            r.close()


def initiation(name):
    return bmp_router.message(4, struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 1, 4) + b"test")


class Recorder:
    """Passes requests on to the pipeline's server and keeps what was asked for."""

    def __init__(self, target):
        self.target = target.rsplit(":", 1)
        self.lines = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client):
        with client:
            request = b""
            while b"\r\n\r\n" not in request:
                data = client.recv(4096)
                if not data:
                    return
                request += data
            self.lines.append(request.split(b"\r\n")[0].decode())
            with socket.create_connection((self.target[0], int(self.target[1])), timeout=30) as server:
                server.sendall(request)
                while data := server.recv(65536):
                    client.sendall(data)

    def close(self):
        self.listener.close()


class Text(html.parser.HTMLParser):
    """The words of a page as they are shown, one row of a table or one block a line."""

    def __init__(self, page):
        super().__init__()
        self.out, self.hidden = [], 0
        self.feed(page)
        self.lines = [" ".join(x.split()) for x in "".join(self.out).split("\n")]

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("style", "title")
        self.out.append("\n" if tag in ("tr", "li", "p", "h1", "h2") else " ")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "title")

    def handle_data(self, data):
        if not self.hidden:
            self.out.append(data)


def chromium(*args):
    with tempfile.TemporaryDirectory() as profile:
        r = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                            "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                            f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}", *args],
                           capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": profile})
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stdout


def pixels(path):
    """Size of a PNG without interlacing and how often each colour is in it."""
    with open(path, "rb") as f:
        data = f.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            packed += body
        at += 12 + length
    assert depth == 8 and colour in (2, 6) and interlace == 0, (depth, colour, interlace)
    n = {2: 3, 6: 4}[colour]
    raw, stride, previous, counts = zlib.decompress(packed), width * n, bytes(width * n), {}
    for y in range(height):
        filtering, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for x in range(stride):
            left, up = row[x - n] if x >= n else 0, previous[x]
            corner = previous[x - n] if x >= n else 0
            if filtering == 4:
                guess = left + up - corner
                near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            else:
                near = (0, left, up, (left + up) // 2)[filtering]
            row[x] = (row[x] + near) & 255
        for x in range(0, stride, n):
            key = bytes(row[x:x + 3])
            counts[key] = counts.get(key, 0) + 1
        previous = row
    return width, height, counts


def request(p, method, path):
    host, port = p.metrics.rsplit(":", 1)
    c = http.client.HTTPConnection(host, int(port), timeout=30)
    c.request(method, path)
    r = c.getresponse()
    return r.status, r.headers, r.read().decode()


def rows_of(page):
    """{address: row of the table of routers}"""
    return {line.split()[0]: line for line in Text(page).lines if line[:4] == "127."}


def check_aranctl_and_metrics(p, routers):
    """The same words in the table, in JSON with what they mean, and in the metrics."""
    by_address = {r["address"]: r for r in p.routers()}
    metrics = p.metrics_text()
    table = p.aranctl("routers").stdout
    for address, state in routers.CONDITIONS.items():
        r = by_address[address]
        well = state == "receiving"
        assert (r["condition"], r["concern"]) == (state, "none" if well else "problem"), r
        assert r["diagnosis"].endswith(".") and bool(r["advice"]) != well, r
        assert any(x.startswith(f'arancini_router_state{{router="{address}"') and f'state="{state}"}} 1' in x
                   for x in metrics.splitlines()), (address, metrics)
        assert any(x.split()[0] == address and state in x.split() for x in table.splitlines() if x[:4] == "127."), table
        assert (f"{address} is {state}:" in table) != well, table
    assert by_address["127.0.9.9"]["state"] == "refused" and by_address["127.0.9.9"]["last_error_code"] == 304
    words = " ".join(table.split())
    assert "has not sent a single BMP message" in words and "Add its address to bmp.allow" in words, table
    assert all(len(x) <= 80 for x in table.splitlines()), table
    # What came and was stored is in the histograms.
    assert p.metric("arancini_publish_ack_seconds_count") == p.metric("arancini_publish_messages_acked_total") > 0
    assert p.metric("arancini_publish_ring_to_ack_seconds_sum") >= p.metric("arancini_publish_ack_seconds_sum") > 0
    assert p.metric("arancini_ingest_receive_to_ring_seconds_count") > 0
    assert p.metric("arancini_ingest_bmp_lag_seconds_count") == 0, "these routers tell no time"


def check(p, routers, keep):
    # Seconds after they came, silence is no longer taken for a beginning.
    def conditions():
        rows = rows_of(request(p, "GET", "/")[2])
        return all(f" {state} " in rows.get(a, "") for a, state in routers.CONDITIONS.items())
    try:
        wait_for("the page tells all routers apart", conditions, 60, 0.5)
    except AssertionError:
        print("\n".join(Text(request(p, "GET", "/")[2]).lines), file=sys.stderr)
        raise

    check_aranctl_and_metrics(p, routers)

    status, headers, _ = request(p, "GET", "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    assert request(p, "HEAD", "/")[::2] == (200, "")
    assert request(p, "POST", "/")[0] == 405 and request(p, "GET", "/other")[0] == 404

    recorder = Recorder(p.metrics)
    try:
        url = f"http://{recorder.address}/"
        dom = chromium("--dump-dom", url)
        text = Text(dom)
        whole = "\n".join(text.lines)
        for words in ("Arancini – lab", "Problem:", "127.0.9.9", "neither bmp.allow nor a [[router]] has its address",
                      "Add its address to bmp.allow", "has not sent a single BMP message", "Activate BMP monitoring",
                      "<b>core-3</b>", "3 BGP peers are up, but no route came", "Shards", "ingestd@1", "publishd"):
            assert words in whole, (words, whole)
        assert "All is well" not in whole
        found = rows_of(dom)
        for address, state in routers.CONDITIONS.items():
            assert f" {state} " in found[address], (state, found[address])

        with tempfile.TemporaryDirectory() as folder:
            shot = keep or os.path.join(folder, "page.png")
            chromium(f"--screenshot={shot}", url)
            width, height, counts = pixels(shot)
        assert (width, height) == (WIDTH, HEIGHT)
        background = max(counts.values())
        assert len(counts) > 50 and background < 0.9 * width * height, (len(counts), background)
        assert recorder.lines == ["GET / HTTP/1.1"] * 2, recorder.lines
        print(f"Chromium: {len(counts)} colours, {len(recorder.lines)} requests")

        plain = subprocess.run(["w3m", "-dump", "-cols", "150", url], capture_output=True, text=True, timeout=60,
                               env={**os.environ, "HOME": p.dir, "LC_ALL": "C.UTF-8"}, check=True).stdout
        lines = plain.splitlines()
        for address, state in routers.CONDITIONS.items():
            assert any(address in x and state in x.replace(".", " ").split() for x in lines), (address, state, plain)
        assert "Problem:" in plain and "Add its address to bmp.allow" in plain and "publishd" in plain, plain
        print("w3m: the same")
    finally:
        recorder.close()

    # What gets well again is shown well.
    routers.silent.sendall(initiation(b"core-2"))
    wait_for("it is no longer silent", lambda: " no-peers " in rows_of(request(p, "GET", "/")[2])["127.0.2.2"], 30, 0.3)


if __name__ == "__main__":
    main()
