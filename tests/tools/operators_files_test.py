#!/usr/bin/env python3
"""docs/alerts.yml and docs/grafana-dashboard.json: well-formed, every metric in them is one that docs/metrics.md lists (that list is
held against what curated exports), and each alert says what to do. usage: operators_files_test.py DOCS"""
import json
import os
import re
import shutil
import subprocess
import sys

DOCS = sys.argv[1]


def read(name):
    with open(os.path.join(DOCS, name)) as f:
        return f.read()


METRICS = dict(re.findall(r"^\| `(arancini_\w+)` \| (\w+) \|", read("metrics.md"), re.M))
LABELS = {m: set(labels.split(", ")) for m, labels in re.findall(r"^\| `(arancini_\w+)` \| \w+ \| ([\w, ]+?) *\|", read("metrics.md"), re.M)}
# The words that the label `state` of a router can have.
STATES = set(re.search(r"`arancini_router_state` has the same words.*?(?=\n- )", read("metrics.md"), re.S)[0].replace("`", " ").split())


def known(expression):
    """Every metric of a query is exported, and is asked as its type allows."""
    names = re.findall(r"\barancini_\w+", expression)
    assert names, f"no metric: {expression}"
    for name in names:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if METRICS.get(base) == "histogram":
            assert name != base, f"{name} is a histogram: {expression}"
            continue
        assert name in METRICS, f"{name} is not in docs/metrics.md: {expression}"
        in_range = re.search(r"(rate|increase)\(" + name + r"\b", expression)
        assert not in_range or METRICS[name] == "counter", f"{name} is no counter: {expression}"
    for state in re.findall(r'arancini_router_state\{[^}]*state[!=~]+"([^"]*)"', expression):
        for word in state.split("|"):
            assert word in STATES, f"{word} is no state of a router: {expression}"
    return set(names)


def check_alerts():
    text = read("alerts.yml")
    try:
        import yaml
    except ImportError:
        # Each value stands in one line, so the expressions can be found all the same.
        print("python3-yaml is not installed: only the expressions are checked")
        rules = [{"expr": e.replace("''", "'")} for e in re.findall(r"^ +expr: '(.*)'$", text, re.M)]
        assert len(rules) == text.count("- alert: ")
    else:
        groups = yaml.safe_load(text)["groups"]
        rules = [r for g in groups for r in g["rules"]]
        names = [r["alert"] for r in rules]
        assert len(set(names)) == len(names), names
        for r in rules:
            assert set(r) == {"alert", "expr", "for", "labels", "annotations"}, r
            assert re.fullmatch(r"\d+m", r["for"]), r
            assert r["labels"]["severity"] in ("critical", "warning", "info"), r
            assert set(r["annotations"]) == {"summary", "todo"}, r
            todo = r["annotations"]["todo"]
            assert len(todo) > 20 and todo.endswith((".", ".)")), r
            # Labels in the text are labels that the series can have.
            labels = set(re.findall(r"\$labels\.(\w+)", json.dumps(r["annotations"])))
            has = set().union(*(LABELS.get(re.sub(r"_bucket$", "", m), set()) for m in known(r["expr"])))
            assert labels <= has, (r["alert"], labels - has)
    assert len(rules) > 20
    for r in rules:
        known(r["expr"])
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "rules", os.path.join(DOCS, "alerts.yml")], check=True)
    print(len(rules), "alerts")


def check_dashboard():
    dashboard = json.loads(read("grafana-dashboard.json"))
    assert dashboard["title"] and dashboard["uid"] and dashboard["schemaVersion"] >= 30
    panels = dashboard["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken = set()
    for p in panels:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24 and not cells & taken, p["title"]
        taken |= cells
        for t in p.get("targets", []):
            known(t["expr"])
        assert p["type"] == "row" or p["targets"], p["title"]
    for v in dashboard["templating"]["list"]:
        if v["type"] == "query":
            known(v["query"]["query"])
    print(len(panels), "panels")


check_alerts()
check_dashboard()
