#!/usr/bin/env python3
"""Compares corpus_count with the expected counts of the conformance corpus: corpus_test.py CORPUS_COUNT [-v]

The corpus is not part of the repository: it is looked for in $ARANCINI_SHARED/corpus, then in ../shared/corpus beside the
repository. Exit 77 (skipped) when it is not there.
"""
import csv
import json
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FAMILIES = ("1/1", "2/1", "1/2", "2/2")
KINDS = ("bmp", "bmp-wrapped", "bgp")


def find_corpus():
    roots = [os.environ["ARANCINI_SHARED"]] if "ARANCINI_SHARED" in os.environ else []
    roots.append(HERE.parents[3] / "shared")
    for root in roots:
        corpus = pathlib.Path(root) / "corpus"
        if (corpus / "MANIFEST.tsv").is_file():
            return corpus
    return None


def expectation(path, row):
    """The reference counts of a corpus file: from its expect.json, else what the manifest says that it exercises."""
    name = path.name.removesuffix(".xz")
    for stem in (name.rsplit(".", 1)[0], name, path.name):
        candidate = path.with_name(stem + ".expect.json")
        if candidate.is_file():
            return json.loads(candidate.read_text())["reference"]
    reference = {}
    for part in row["exercises"].split("; "):
        what, _, counts = part.partition(" ")
        if what in ("announced", "withdrawn", "eor"):
            reference[what] = {k: int(v) for k, v in (item.split("=") for item in counts.split())}
    return reference


def plain(counts, split_view=False):
    """Only the families that are decoded, without zeros."""
    return {k: v for k, v in (counts or {}).items() if v and (k.split()[-1] if split_view else k) in FAMILIES}


def explanations():
    """path <tab> what <tab> reason, see corpus_differences.tsv."""
    known = {}
    for line in (HERE / "corpus_differences.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            path, what, reason = line.split("\t")
            known[path, what] = reason
    return known


def main():
    program, verbose = sys.argv[1], "-v" in sys.argv
    corpus = find_corpus()
    if corpus is None:
        print("skipped: no corpus in $ARANCINI_SHARED or ../shared")
        return 77
    known, used = explanations(), set()
    table = {k: dict(files=0, checked=0, prefixes=0, routes=0, explained=0, mismatches=0) for k in KINDS}
    with open(corpus / "MANIFEST.tsv", newline="") as f, tempfile.TemporaryDirectory() as scratch:
        for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["kind"] not in KINDS:
                continue
            counts = table[row["kind"]]
            counts["files"] += 1
            path = corpus / row["path"]
            ref = expectation(path, row)
            source = path
            if path.suffix == ".xz":
                source = pathlib.Path(scratch) / path.name
                with lzma.open(path) as packed, open(source, "wb") as out:
                    while chunk := packed.read(1 << 20):
                        out.write(chunk)
            command = [program] + (["--bgp"] if row["kind"] == "bgp" else []) + [str(source)]
            run = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if source != path:
                source.unlink()
            if run.returncode != 0:
                print(f"{row['path']}: {program} exits {run.returncode}: {run.stderr.strip()}")
                counts["mismatches"] += 1
                continue
            got = json.loads(run.stdout)
            interesting = False
            for what in ("announced", "withdrawn", "eor", "final_routes"):
                split = what == "final_routes"
                # A few files have no final table in their reference: raw BGP, and what the manifest alone describes.
                if split and what not in ref and (row["kind"] == "bgp" or "messages" not in ref):
                    continue
                want, have = plain(ref.get(what), split), plain(got[what], split)
                interesting |= bool(want)
                if what == "announced":
                    counts["prefixes"] += sum(want.values())
                if split:
                    counts["routes"] += sum(want.values())
                if want == have:
                    continue
                reason = known.get((row["path"], what))
                if reason:
                    used.add((row["path"], what))
                    counts["explained"] += 1
                    if verbose:
                        print(f"explained: {row['path']}: {what}: {reason}")
                    continue
                counts["mismatches"] += 1
                print(f"{row['path']}: {what}: expected {want}, got {have}")
                print(f"    suspected_malformed: {row['suspected_malformed']}; flags {ref.get('flags')}")
                print(f"    notes {got['notes']}; errors {got['errors'][:3]}")
            counts["checked"] += interesting
    columns = list(table["bmp"])
    print(f"{'kind':<12}" + "".join(f"{c:>16}" for c in columns))
    for kind, counts in table.items():
        print(f"{kind:<12}" + "".join(f"{counts[c]:>16}" for c in columns))
    stale = set(known) - used
    for path, what in sorted(stale):
        print(f"stale explanation: {path}: {what}")
    return 1 if stale or any(c["mismatches"] for c in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
