#!/usr/bin/env python3
"""The manual pages: man has nothing to say against them, and every command, option, exit code and configuration key is there."""
import os
import re
import shutil
import subprocess
import sys

from command_line import ARANCTL, BUILD, REPO, commands, help_text, options, section


def shown(name):
    """A page as a reader sees it, without warnings."""
    path = os.path.join(BUILD, "tools", "man", name)
    env = dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="500", MAN_KEEP_FORMATTING="")
    r = subprocess.run(["man", "--warnings", "-l", path], capture_output=True, text=True, timeout=60, env=env)
    assert r.returncode == 0 and not r.stderr, (name, r.stderr)
    text = re.sub(".\b", "", r.stdout)
    for heading in ("NAME", "DESCRIPTION", "SEE ALSO"):
        assert f"\n{heading}\n" in text, (name, heading)
    return text


def has(text, word):
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def main():
    if not shutil.which("man") or subprocess.run(["man", "--version"], capture_output=True).returncode != 0:
        print("skipped: there is no man (man-db)")
        return 77
    page = shown("aranctl.1")
    for name in commands():
        # The command's part of the page: up to the next one.
        part = re.search(rf"\n   aranctl {name} \[OPTIONS\].*?(?=\n   aranctl |\nEXIT STATUS)", page, re.S)
        assert part, name
        for group in options(help_text(name)):
            for option in group:
                assert has(part.group(0), option), (name, option)
        assert "Example:" in part.group(0), name
    for group in options(help_text()):
        for option in group:
            assert has(page, option), option
    status = page[page.index("\nEXIT STATUS"):]
    for line in section(help_text(), "Exit codes"):
        assert has(status, line.split()[0]), line

    for daemon in ("curated", "ingestd", "publishd"):
        page = shown(daemon + ".8")
        names = options(help_text(program=os.path.join(BUILD, daemon, daemon)))
        assert len(names) > 10, names
        for group in names:
            for option in group:
                assert has(page, option), (daemon, option)

    page = shown("arancini.toml.5")
    table = [line for line in open(os.path.join(REPO, "docs", "configuration.md")) if line.startswith("| `")]
    keys = [key for line in table for key in re.findall(r"`([a-z_]+\.[a-z0-9_]+)`", line.split("|")[1])]
    assert len(keys) > 50, len(keys)
    for key in keys:
        assert has(page, key), key
    print(f"{len(commands())} commands, {len(keys)} keys, {os.path.basename(ARANCTL)} and three daemons")
    return 0


if __name__ == "__main__":
    sys.exit(main())
