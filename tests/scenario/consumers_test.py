#!/usr/bin/env python3
"""Consumers that no one here wrote: npm's nats client reads the stream, the capnp tool decodes the payloads, also with a
schema that ends at the last field of existing consumers (@30)."""
import json
import os
import re
import shutil
import subprocess

from harness import REPO, Pipeline, binary, folded_equals, skip, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    for tool in ("node", "npm", "capnp"):
        if not shutil.which(tool):
            skip(f"{tool} is not installed")
    with Pipeline(shards=2) as pipeline:
        module = os.path.join(pipeline.dir, "js")
        shutil.copytree(os.path.join(HERE, "nats-js"), module, ignore=shutil.ignore_patterns("node_modules"))
        npm = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=module, capture_output=True,
                             text=True, timeout=300)
        if npm.returncode != 0:
            skip("npm's nats cannot be installed here: " + npm.stderr.strip()[-200:])
        truth = os.path.join(pipeline.dir, "truth.jsonl")
        gen = subprocess.Popen([binary("bmpgen"), "--to", pipeline.bmp, "--source", "127.0.0.1", "--peers", "2", "--prefixes",
                                "1000", "--churn", "500", "--hold", "600", "--truth", truth], stdout=subprocess.DEVNULL)
        try:
            def truth_lines():
                return open(truth).read().splitlines() if os.path.exists(truth) else []
            wait_for("the truth is written", truth_lines)
            folded_equals(pipeline, truth_lines())
            payloads = os.path.join(pipeline.dir, "payloads")
            r = subprocess.run(["node", os.path.join(module, "read.js"), pipeline.nats, payloads], capture_output=True,
                               text=True, timeout=120)
            assert r.returncode == 0, r.stderr
            read = json.loads(r.stdout)
            audit = pipeline.audit()
            assert read["updates"] == audit["records"], (read, audit)
            assert read["formats"] == ["update-v1-concat"], read
            pattern = re.compile(r"arancini\.updates\.v4_127_0_0_1\.6500[12]\.[12]_1$")
            assert len(read["subjects"]) == 4 and all(pattern.match(s) for s in read["subjects"]), read["subjects"]

            def durable(most):
                r = subprocess.run(["node", os.path.join(module, "durable.js"), pipeline.nats, "billing", "arancini.updates.>",
                                    str(most)], capture_output=True, text=True, timeout=120)
                assert r.returncode == 0, r.stderr
                return json.loads(r.stdout)
            part, rest = durable(3), durable(0)
            assert part["messages"] == 3 and rest["first"] == part["last"] + 1, (part, rest)
            assert part["updates"] + rest["updates"] == audit["records"], (part, rest, audit)

            schema = os.path.join(REPO, "common", "schema", "update.capnp")
            text = open(schema).read()
            old = os.path.join(pipeline.dir, "old.capnp")
            body = text[:text.index("  sequence @31")] + "}\n" + text[text.index("struct Community"):]
            with open(old, "w") as f:
                f.write(re.sub(r"(?m)^(using Cxx|\$Cxx).*$", "", body))
            for file in (schema, old):
                with open(payloads, "rb") as f:
                    out = subprocess.run(["capnp", "decode", "--short", file, "Update"], stdin=f, capture_output=True,
                                         text=True, timeout=120)
                assert out.returncode == 0, out.stderr
                lines = out.stdout.splitlines()
                assert len(lines) == read["updates"], (len(lines), read)
                assert sum("announced = true" in x for x in lines) > 2000
                assert all("timeReceivedNs" in x and "prefixAddr" in x for x in lines)
            print(f"npm's nats read {read['messages']} messages with {read['updates']} updates; capnp decoded all with "
                  "the schema and with one that ends at @30; a durable consumer went on where it had stopped")
        finally:
            gen.terminate()
            gen.wait()


if __name__ == "__main__":
    main()
