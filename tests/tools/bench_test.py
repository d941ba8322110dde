#!/usr/bin/env python3
"""tools/bench with programs made for this: what it says of those that work, fail, or cannot run here."""
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
import tempfile

REPO = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def load():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("bench", os.path.join(REPO, "tools", "bench"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench", loader))
    loader.exec_module(module)
    return module


def run(bench, *arguments):
    """(exit status, what it printed)"""
    out = io.StringIO()
    sys.argv = ["bench", "--no-build", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = bench.main()
    return status, out.getvalue()


def main():
    bench = load()
    names = [p.name for p in bench.PROGRAMS]
    assert len(names) == len(set(names)), names
    for p in bench.PROGRAMS:
        if p.command[0].endswith(".py"):
            assert os.access(p.command[0], os.X_OK), p.command[0]
    with tempfile.TemporaryDirectory() as directory:
        bench.BUILD = directory
        figures = {"a.x.ns": 1.5, "a.x.ns.min": 1, "a.x.ns.max": 2, "ring.records_per_s": 14e6, "idle.cpu_percent": 0.1}

        def program(name, script):
            path = os.path.join(directory, name)
            with open(path, "w") as f:
                f.write("#!/bin/sh\n" + script)
            os.chmod(path, 0o755)
            p = bench.Program(name, [name], f"Title of {name}")
            p.command = [path]
            return p
        bench.PROGRAMS = [
            program("good", f"echo \"$@\" >{directory}/arguments; echo '{json.dumps(figures)}' >$2"),
            program("bad", "echo one; echo the reason >&2; exit 3"),
            program("elsewhere", "echo needs two cores; exit 77"),
            program("nonsense", "echo '{\"a\": \"text\"}' >$2"),
        ]
        missing = bench.Program("missing", ["missing"], "Not built")
        status, text = run(bench, "--only", "good", "--quick", "--json", os.path.join(directory, "out"))
        assert status == 0, text
        for part in ("1.5  1 to 2", ">= 15,000,000: NOT MET", "<= 0.5: met", "--quick: the figures say little"):
            assert part in text, (part, text)
        with open(os.path.join(directory, "out")) as f:
            merged = json.load(f)
        assert figures.items() <= merged.items() and merged["machine.cores"] >= 1, merged
        with open(os.path.join(directory, "arguments")) as f:
            assert "--quick" in f.read()
        run(bench, "--only", "good", "--repeat", "7")
        with open(os.path.join(directory, "arguments")) as f:
            assert f.read().split()[2:] == ["--repeat", "7"]

        bench.PROGRAMS.append(missing)
        status, text = run(bench)
        assert status == 1
        for part in ("failed with status 3: the reason", "cannot run here: needs two cores", "not all values are numbers",
                     "cannot be started", "1.5  1 to 2", "not measured: stage.table_dump.full.updates_per_s"):
            assert part in text, (part, text)
        bench.PROGRAMS = bench.PROGRAMS[:1]
        status, text = run(bench)
        assert status == 1 and "not measured" in text, text  # a run of all must yield what scripts rely on
    print("passed")


if __name__ == "__main__":
    main()
