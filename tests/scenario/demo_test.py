#!/usr/bin/env python3
"""tools/up --demo exits 0, shows updates and table, and says that the fold matches; its expected table is what an
independent reading of the recording gives (so it is not our own output written down)."""
import json
import os
import subprocess

import bmp_reference
from harness import BUILD, REPO


def main():
    capture = os.path.join(REPO, "tests", "captures", "frr8-incr-both.bmp")
    session = bmp_reference.Session("127.0.0.1")
    session.feed(open(capture, "rb").read())
    expected = [json.loads(x) for x in open(os.path.join(REPO, "tools", "demo-table.jsonl"))]
    assert len(expected) > 20
    assert bmp_reference.comparable(expected) == bmp_reference.comparable(session.routes())
    r = subprocess.run([os.path.join(REPO, "tools", "up"), "--demo", "--no-install"], capture_output=True, text=True,
                       timeout=110, env=dict(os.environ, ARANCINI_BUILD=BUILD))
    assert r.returncode == 0, r.stdout + r.stderr
    assert r.stdout.rstrip().endswith("fold matches source: yes"), r.stdout[-500:]
    for heading in ("first updates", "folded table", "status", "audit"):
        assert heading in r.stdout
    print("\n".join(r.stdout.splitlines()[-6:]))


if __name__ == "__main__":
    main()
