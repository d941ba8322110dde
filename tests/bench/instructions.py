#!/usr/bin/env python3
"""Instructions per update and stage (stage_bench, callgrind) against those recorded in instructions.json, next to this file.

A stage that needs over 5 % more fails. Accept it with `tools/bench --accept-instructions` if it is worth it, and say why in
the commit. One that needs over 5 % less does not fail: renew the record, or the gain can be lost again unnoticed.
Counts repeat exactly with one compiler and build; with another one there is nothing to compare, and the check is skipped."""
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("ARANCINI_BUILD") or os.path.join(HERE, "..", "..", "build"))
RECORD = os.path.join(HERE, "instructions.json")
STAGE_BENCH = os.path.join(BUILD, "tests", "bench", "stage_bench")
SKIP = 77
TOLERANCE = 0.05
DERIVED = {"curate", "policy"}  # differences of others
PREFIX, SUFFIX = "stage.", ".instructions_per_update"


def how_built():
    """What the counts depend on besides the code."""
    compiler = subprocess.run([STAGE_BENCH, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    with open(os.path.join(BUILD, "meson-info", "intro-buildoptions.json")) as f:
        options = {o["name"]: o["value"] for o in json.load(f)}
    return {"compiler": compiler, "machine": os.uname().machine,
            **{name: str(options[name]) for name in ("buildtype", "b_lto", "b_pgo", "b_sanitize", "march")}}


def count():
    # meson test sets it at random, and malloc fills memory with it.
    environment = {k: v for k, v in os.environ.items() if k != "MALLOC_PERTURB_"}
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([STAGE_BENCH, "--instructions-only", "--json", out.name],
                              stderr=subprocess.PIPE, text=True, check=False, env=environment)
        if done.returncode == SKIP:
            print("skipped:", done.stderr.strip())
            sys.exit(SKIP)
        if done.returncode:
            sys.exit("stage_bench: " + done.stderr.strip())
        figures = json.load(out)
    return {key[len(PREFIX):-len(SUFFIX)]: round(value, 2) for key, value in figures.items()
            if key.endswith(SUFFIX) and key[len(PREFIX):-len(SUFFIX)].split(".")[-1] not in DERIVED}


def main():
    built = how_built()
    if sys.argv[1:] == ["--accept"]:
        with open(RECORD, "w") as f:
            json.dump({"built": built, "instructions_per_update": count()}, f, indent=2, sort_keys=True)
            f.write("\n")
        print("recorded in", os.path.relpath(RECORD))
        return 0
    if sys.argv[1:]:
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 64
    with open(RECORD) as f:
        record = json.load(f)
    if record["built"] != built:
        print(f"skipped: recorded with {record['built']}, built with {built}")
        return SKIP
    was, now = record["instructions_per_update"], count()
    status, renew = 0, False
    print(f"{'instructions per update':28} {'recorded':>10} {'now':>10}")
    for stage in sorted(was.keys() | now.keys()):
        if stage not in was or stage not in now:
            print(f"{stage:28} {'FAILED: not recorded' if stage in now else 'FAILED: no longer measured'}")
            status = 1
            continue
        change = now[stage] / was[stage] - 1
        verdict = ""
        if change > TOLERANCE:
            status, verdict = 1, "FAILED: dearer"
        elif change < -TOLERANCE:
            renew, verdict = True, "cheaper"
        print(f"{stage:28} {was[stage]:10.2f} {now[stage]:10.2f} {change:+8.2%}  {verdict}")
    if status:
        print("If that is worth it: tools/bench --accept-instructions, and say why in the commit.")
    elif renew:
        print("Cheaper by more than 5 %: renew the record, tools/bench --accept-instructions.")
    return status


if __name__ == "__main__":
    sys.exit(main())
