"""How each program is called, and what a call costs."""

import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ESKER = os.path.join(HERE, "../../target/release/esker")
PASSWORD = "correct horse battery staple"


class Tool:
    """How one program is called. `home` holds its repository, cache and restores."""

    program = None
    version = ["--version"]
    # Whether a password is derived for each command.
    derives = True
    init_options = []

    def __init__(self, home):
        self.name = self.name if hasattr(self, "name") else self.program
        self.home = os.path.join(home, self.name)
        self.repo = os.path.join(self.home, "repo")
        self.target = os.path.join(self.home, "restored")
        self.log = os.path.join(self.home, "log")
        self.path = self.find()
        self.backups = 0

    def find(self):
        return shutil.which(self.program)

    def describe(self):
        out = subprocess.run([self.path, *self.version], capture_output=True, text=True, check=True).stdout
        return out.splitlines()[0]

    def environment(self):
        name = self.program.upper()
        home = {key: self.home for key in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")}
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **home,
                f"{name}_REPOSITORY": self.repo, f"{name}_PASSWORD": PASSWORD}

    def command(self, step, source):
        return {
            "init": ["init", *self.init_options],
            "backup": ["backup", source],
            "restore": ["restore", "latest", "--target", self.target],
            "check": ["check", "--read-data"],
        }.get(step)

    def restored(self, source):
        """Where a restore puts the tree that was backed up."""
        return self.target + source

    def prepare(self, step):
        """What is done before a step and not counted."""

    def ended(self, step):
        """Looks at the log of a step that is over."""

    def run(self, step, source, synced):
        """Runs a step and gives wall, CPU, peak RSS, and CPU used by others meanwhile."""
        kind = next(kind for kind in ("init", "backup", "restore", "check") if kind in step)
        command = self.command(kind, source)
        if command is None:
            return None
        self.backups += kind == "backup"
        os.makedirs(self.target if kind == "restore" else self.home, exist_ok=True)
        self.prepare(kind)
        if synced:
            os.sync()
        busy = machine_busy()
        began = time.monotonic()
        with open(self.log, "wb") as out:
            process = subprocess.Popen([self.path, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       env=self.environment(), cwd=self.target if kind == "restore" else self.home)
            _, status, usage = os.wait4(process.pid, 0)
        if synced:
            os.sync()
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{open(self.log).read()}")
        self.ended(kind)
        cpu = usage.ru_utime + usage.ru_stime
        return wall, cpu, usage.ru_maxrss / 1024, max(0, machine_busy() - busy - cpu)


class Esker(Tool):
    program = "esker"

    def find(self):
        return os.path.realpath(ESKER) if os.path.exists(ESKER) else None


class EskerKey(Esker):
    name = "esker+key"
    derives = False

    def environment(self):
        environment, key = super().environment(), os.path.join(self.home, "key")
        if os.path.exists(key):
            del environment["ESKER_PASSWORD"]
            environment["ESKER_KEY_FILE"] = key
        return environment

    def ended(self, step):
        if step == "init":
            command = [self.path, "key", "add", "--out", os.path.join(self.home, "key")]
            subprocess.run(command, env=self.environment(), check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Restic(Tool):
    program = "restic"
    version = ["version"]
    init_options = ["--repository-version", "2"]  # the one that compresses


class Rustic(Tool):
    program = "rustic"

    def command(self, step, source):
        return ["restore", "latest", self.target] if step == "restore" else super().command(step, source)


class Borg(Tool):
    program = "borg"

    def environment(self):
        return {**super().environment(), "BORG_PASSPHRASE": PASSWORD, "BORG_REPO": self.repo,
                "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def command(self, step, source):
        return {
            "init": ["init", "--encryption", "repokey-blake2"],
            "backup": ["create", f"::{self.backups + 1}", source],
            "restore": ["extract", f"::{self.backups}"],
            "check": ["check", "--verify-data"],
        }[step]


class Bupstash(Tool):
    """It has a key file and no command that verifies what is stored."""
    program = "bupstash"
    derives = False

    def environment(self):
        return {**super().environment(), "BUPSTASH_KEY": os.path.join(self.home, "key")}

    def command(self, step, source):
        return {
            "init": ["init"],
            "backup": ["put", "--quiet", source],
            "restore": ["restore", "--quiet", "--into", self.target, f"id={getattr(self, 'newest', '')}"],
        }.get(step)

    def prepare(self, step):
        if step == "init":
            subprocess.run([self.path, "new-key", "-o", os.path.join(self.home, "key")], check=True)

    def ended(self, step):
        if step == "backup":
            self.newest = re.findall("[0-9a-f]{32}", open(self.log).read())[-1]

    def restored(self, source):
        return self.target


TOOLS = [Esker, EskerKey, Restic, Rustic, Borg, Bupstash]


def machine_busy():
    """CPU seconds spent by everything on this machine, since it started."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def tree_bytes(root):
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(root) for name in names)
