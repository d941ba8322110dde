"""A real systemd as PID 1, booted by systemd-nspawn over an overlay of this machine's root: what is installed here is there,
what is changed there is gone afterwards. It has a network of its own (lo alone). Every mount is made in a mount namespace of
this process, so that none outlives it, however it ends; nspawn dies with its parent."""
import contextlib
import ctypes
import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)
# Of the machine, not of the product: they would only take time, ports and the archive's bandwidth.
UNWANTED = ("etc/systemd/system/multi-user.target.wants", "etc/systemd/system/timers.target.wants",
            "etc/systemd/system/sysinit.target.wants", "etc/systemd/system/getty.target.wants")


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def require():
    """Ends the process with 77 where a systemd cannot be booted."""
    if os.getuid() != 0:
        skip("booting a systemd takes root")
    if shutil.which("systemd-nspawn") is None:
        skip("systemd-nspawn is not installed (Debian: systemd-container)")
    if not os.path.exists("/lib/systemd/systemd"):
        skip("systemd is not installed")
    if os.path.exists("/run/systemd/system"):
        skip("systemd is PID 1 here: nspawn would want a scope of it; run this where it is not")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # all is taken down


def private_mounts():
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        skip(f"no mount namespace: {os.strerror(ctypes.get_errno())}")


def enter_network(namespace):
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def left_cgroups():
    """What nspawn made below our own cgroups: one of each name, in each hierarchy."""
    return [path for name in ("payload", "supervisor") for path in glob.glob(f"/sys/fs/cgroup/*/{name}") +
            glob.glob(f"/sys/fs/cgroup/{name}")]


def remove_cgroups():
    """Those without a process; whether any are left, left_cgroups() tells."""
    for top in left_cgroups():
        tree = [path for path, _, _ in os.walk(top, topdown=False)]
        try:
            if any(open(f"{path}/cgroup.procs").read() for path in tree):
                continue
            for path in tree:
                os.rmdir(path)
        except OSError:
            continue  # it changes: somebody lives there


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Booted:
    """with Booted(files={path: text}) as b: b.run(...), b.systemctl(...)"""

    def __init__(self, files=None):
        self.files = files or {}
        self.nspawn = None
        self.leader = None

    def __enter__(self):
        self.lock = open("/run/arancini-systemd-test.lock", "w")  # one at a time: all of them use the same cgroups
        wait_for("the end of another such test", self.locked, 120)
        private_mounts()
        if left_cgroups():
            remove_cgroups()
            if left_cgroups():
                skip(f"another systemd-nspawn runs here: {left_cgroups()}")
        self.folder = tempfile.mkdtemp(prefix="arancini-systemd-")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2G,mode=0755", "tmpfs", self.folder], check=True)
        for name in ("up", "work", "root"):
            os.mkdir(f"{self.folder}/{name}")
        self.root = f"{self.folder}/root"
        made = subprocess.run(["mount", "-t", "overlay", "-o", f"lowerdir=/,upperdir={self.folder}/up,workdir={self.folder}/work",
                               "overlay", self.root], capture_output=True, text=True)
        if made.returncode != 0:
            skip(f"no overlay: {made.stderr.strip()}")
        open(f"{self.root}/etc/machine-id", "w").close()
        for folder in UNWANTED:
            shutil.rmtree(f"{self.root}/{folder}", ignore_errors=True)
        for path, text in self.files.items():
            self.write(path, text)
        self.boot()
        return self

    def locked(self):
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False

    def boot(self):
        self.console = open(f"{self.folder}/console", "ab")

        def dies_with_us():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", self.root, "--register=no", "--keep-unit", "--private-network",
             "--capability=CAP_IPC_LOCK,CAP_SYS_NICE", "--console=pipe", "-b"],
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console, preexec_fn=dies_with_us)
        try:
            self.leader = wait_for("a leader of systemd-nspawn", self.find_leader)
            wait_for("a booted systemd", lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip()
                     in ("running", "degraded"), 30)
        except AssertionError as e:
            text = self.console_text()
            self.__exit__(None, None, None)
            skip(f"systemd does not boot here ({e}): {text[-800:]}")

    def console_text(self):
        return open(f"{self.folder}/console", errors="replace").read()

    def find_leader(self):
        if self.nspawn.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended with {self.nspawn.returncode}")
        try:
            children = open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read().split()
            for child in children:
                if open(f"/proc/{child}/comm").read().strip() == "systemd":
                    return int(child)
        except OSError:
            pass
        return None

    def write(self, path, text, mode=0o644):
        """A file of the booted system, before or after the boot."""
        full = self.root + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as f:
            f.write(text)
        os.chmod(full, mode)

    def command(self, argv):
        return ["nsenter", "-t", str(self.leader), "-m", "-p", "-u", "-i", "-n", "--", *argv]

    def run(self, *argv, check=True, timeout=60, env=None):
        done = subprocess.run(self.command(argv), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **(env or {})})
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *argv):
        """A process in the booted system that the test reads from and ends."""
        return subprocess.Popen(self.command(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    @contextlib.contextmanager
    def network(self):
        """Sockets and threads that this thread makes meanwhile are in the booted system's network."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.leader}/ns/net") as theirs:
            enter_network(theirs)
            try:
                yield
            finally:
                enter_network(ours)

    def systemctl(self, *argv, check=True):
        return self.run("systemctl", "--no-pager", *argv, check=check).stdout

    def show(self, unit, *names):
        """Properties of a unit: one as text, several as a dict."""
        text = self.systemctl("show", unit, *[f"-p{n}" for n in names])
        got = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        return got[names[0]] if len(names) == 1 else got

    def journal(self, unit, lines=40):
        return self.run("journalctl", "--no-pager", "-q", "-u", unit, "-n", str(lines), check=False).stdout

    def halt(self):
        if self.nspawn is not None and self.nspawn.poll() is None:
            if self.leader:
                self.run("kill", "-s", "RTMIN+4", "1", check=False)  # systemd: power off
            try:
                self.nspawn.wait(15 if self.leader else 0.1)
            except subprocess.TimeoutExpired:
                if self.leader:
                    os.kill(self.leader, signal.SIGKILL)  # the init of its pid namespace: all of it goes
                self.nspawn.terminate()
                self.nspawn.wait(10)
        self.console.close()
        self.nspawn = self.leader = None
        wait_for("no cgroups left of systemd-nspawn", lambda: (remove_cgroups(), not left_cgroups())[1], 10)

    def reboot(self):
        self.halt()
        self.boot()

    def __exit__(self, *_):
        self.halt()
        for target in (self.root, self.folder):
            subprocess.run(["umount", "-R", "-l", target], check=False, capture_output=True)
        os.rmdir(self.folder)
