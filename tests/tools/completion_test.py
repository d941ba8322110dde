#!/usr/bin/env python3
"""The completion scripts know every command and option, the shells accept them, and bash and fish complete with them."""
import os
import shutil
import subprocess
import sys
import tempfile

from command_line import ARANCTL, commands, help_text, options


def script(shell):
    return subprocess.run([ARANCTL, "completion", shell], capture_output=True, text=True, check=True, timeout=20).stdout


def run(*command, **more):
    r = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
    assert r.returncode == 0 and not r.stderr, (command, r.stdout, r.stderr)
    return r.stdout


BASH = """
. "$1"; shift
f=$(complete -p aranctl) || exit 1
f=${f#*-F }; f=${f%% *}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
$f aranctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash(path, folder):
    def complete(*words):
        return set(run("bash", "--norc", "-c", BASH, "bash", path, *words, cwd=folder).split())

    run("bash", "-n", path)
    names = commands()
    assert complete("aranctl", "") == set(names)
    assert complete("aranctl", "--") == {o for g in options(help_text()) for o in g if o.startswith("--")}
    assert complete("aranctl", "--json", "rou") == {"routers"}
    for name in names:
        wanted = {o for g in options(help_text(name)) + options(help_text()) for o in g if o.startswith("--")}
        assert complete("aranctl", name, "--") == wanted, name
        # Behind values too; a value is no command.
        assert complete("aranctl", "--runtime-dir", "status", name, "--") == wanted, name
    assert complete("aranctl", "completion", "") == {"bash", "zsh", "fish"}
    assert complete("aranctl", "completion", "z") == {"zsh"}
    assert complete("aranctl", "fold", "--config", "") == {"one", "two"}
    assert complete("aranctl", "fold", "--config", "=", "o") == {"one"}
    assert complete("aranctl", "--runtime-dir", "") == {"two"}
    assert complete("aranctl", "status", "--runtime-dir", "t") == {"two"}
    assert complete("aranctl", "peers", "--router", "") == set()


def fish(path):
    run("fish", "-n", path)

    def complete(line):
        return {x.split("\t")[0] for x in run("fish", "--no-config", "-c", f"source {path}; complete -C '{line}'").splitlines()}
    assert complete("aranctl ") == set(commands())
    assert complete("aranctl sta") == {"status"}
    assert complete("aranctl completion ") == {"bash", "zsh", "fish"}
    assert "--longer" in complete("aranctl lookup --")


def main():
    scripts = {shell: script(shell) for shell in ("bash", "zsh", "fish")}
    for name in commands():
        for shell, text in scripts.items():
            assert name in text, (shell, name)
            for group in options(help_text(name)):
                for option in group:
                    named = option if shell != "fish" else f"-l {option[2:]} " if option.startswith("--") else f"-s {option[1:]} "
                    assert named in text + " ", (shell, name, option)
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for shell, text in scripts.items():
            with open(os.path.join(folder, shell), "w") as f:
                f.write(text)
        there = os.path.join(folder, "there")
        os.makedirs(os.path.join(there, "two"))
        open(os.path.join(there, "one"), "w").close()
        bash(os.path.join(folder, "bash"), there)
        done.append("bash")
        if shutil.which("zsh"):
            run("zsh", "-f", "-n", os.path.join(folder, "zsh"))
            run("zsh", "-f", "-c", f"autoload -Uz compinit; compinit -u -D; source {folder}/zsh; [[ $_comps[aranctl] == _aranctl ]]")
            done.append("zsh")
        if shutil.which("fish"):
            env = dict(os.environ, HOME=folder, XDG_CONFIG_HOME=folder, XDG_DATA_HOME=folder)
            os.environ.update(env)
            fish(os.path.join(folder, "fish"))
            done.append("fish")
    print("checked with", ", ".join(done))


if __name__ == "__main__":
    sys.exit(main())
