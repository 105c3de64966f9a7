"""Deterministic trees to back up, each with a change that can be made and undone.

random       one file of random bytes; the change is a seeded insert, delete or overwrite of
             up to 100 KB for every 5 MiB
disk-image   one file, 55 % of it files of this machine's /usr/lib, 25 % copies of earlier regions at
             unaligned offsets, 10 % runs of zeros, 10 % random; the change is 500 edits for every
             4 GiB, about 2 % of the bytes, a third each inserted, deleted and overwritten
source-tree  text and binaries of this machine (crate sources, then /usr/share) up to a size;
             the change is a line appended to 1 % of the files
state-files  workspaces of indented JSON, as an infrastructure service keeps them;
             the change is one attribute in 5 % of them

All randomness is seeded. source-tree takes what the machine has, so its figures compare on one
machine only; the files and bytes that came out are printed beside the results.
"""

import base64
import json
import os
import random
import shutil

MIB = 1 << 20
SOURCES = [os.path.expanduser("~/.cargo/registry/src"), "/usr/include", "/usr/share", "/usr/lib/python3"]
TYPES = ["aws_instance", "aws_security_group", "aws_iam_role", "aws_s3_bucket", "google_compute_instance",
         "kubernetes_deployment", "azurerm_network_interface", "aws_route53_record"]


def files(root):
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


class Workload:
    """A tree at `self.root`; `self.side` holds what undoing the change needs."""

    def __init__(self, data, size):
        self.size = size
        self.root = os.path.join(data, f"{self.name}-{size}")
        self.side = self.root + ".side"

    def ready(self):
        """Makes the tree unless an earlier run left it whole."""
        done = os.path.join(self.side, "made")
        if not os.path.exists(done):
            for folder in (self.root, self.side):
                shutil.rmtree(folder, ignore_errors=True)
                os.makedirs(folder)
            self.make()
            open(done, "w").close()
        elif os.path.exists(os.path.join(self.side, "changed")):
            self.set_changed(False)

    def set_changed(self, on):
        flag = os.path.join(self.side, "changed")
        if on:
            open(flag, "w").close()
            self.change()
        else:
            self.undo()
            os.remove(flag)

    def warm(self):
        """Reads every byte once, so that all tools find the tree in the page cache."""
        for path in files(self.root):
            with open(path, "rb") as file:
                while file.read(4 * MIB):
                    pass

    def count(self):
        sizes = [os.path.getsize(path) for path in files(self.root)]
        return len(sizes), sum(sizes)

    def save(self, paths):
        """Keeps the files as they are now for `undo_saved`."""
        with open(os.path.join(self.side, "saved.json"), "w") as file:
            json.dump(paths, file)
        for number, path in enumerate(paths):
            shutil.copy2(path, os.path.join(self.side, str(number)))

    def undo(self):
        with open(os.path.join(self.side, "saved.json")) as file:
            for number, path in enumerate(json.load(file)):
                shutil.copy2(os.path.join(self.side, str(number)), path)


class Random(Workload):
    """`size` is in MiB."""
    name = "random"

    def make(self):
        rng = random.Random("random")
        with open(os.path.join(self.root, "random.bin"), "wb") as file:
            for _ in range(self.size):
                file.write(rng.randbytes(MIB))

    def change(self):
        path = os.path.join(self.root, "random.bin")
        self.save([path])
        rng = random.Random("edits")
        places = sorted(rng.sample(range(self.size * MIB), max(1, self.size // 5)))
        with open(os.path.join(self.side, "0"), "rb") as old, open(path, "wb") as new:
            for start, end in zip([0] + places, places + [self.size * MIB]):
                old.seek(start)
                edit = rng.randrange(1, 100_000)
                kind = rng.choice(["insert", "delete", "overwrite"])
                if kind != "delete":
                    new.write(rng.randbytes(edit))
                if kind != "insert":
                    old.seek(min(start + edit, end))
                new.write(old.read(end - old.tell()))


class DiskImage(Workload):
    """`size` is in MiB."""
    name = "disk-image"

    def make(self):
        size = self.size * MIB
        rng = random.Random("image")
        pool = [path for path in files("/usr/lib") if os.path.getsize(path) > 0]
        rng.shuffle(pool)
        at, taken, tally = 0, 0, {"file": 0, "copy": 0, "zero": 0, "random": 0}
        with open(self.path(), "w+b", buffering=0) as image:
            while at < size:
                # Whichever kind is furthest behind its share comes next.
                share = {"file": .55, "copy": .25 if at > 64 * MIB else 0, "zero": .10, "random": .10}
                kind = max(share, key=lambda k: share[k] * (at + 1) - tally[k] + rng.random() * 4 * MIB)
                if kind == "file":
                    with open(pool[taken % len(pool)], "rb") as file:
                        block = file.read(48 * MIB)
                    taken += 1
                    block += bytes(-len(block) % 4096)
                elif kind == "copy":
                    length = min(at, int(65536 * 256 ** rng.random()) + rng.randrange(4096))
                    block = os.pread(image.fileno(), length, rng.randrange(at - length + 1))
                elif kind == "zero":
                    block = bytes(int(4096 * 2048 ** rng.random()))
                else:
                    block = rng.randbytes(int(65536 * 128 ** rng.random()))
                block = block[:size - at]
                image.write(block)
                at += len(block)
                tally[kind] += len(block)
        self.edit()

    def edit(self):
        """Makes the edited image beside the tree."""
        size = self.size * MIB
        rng = random.Random("edits")
        places = sorted(rng.sample(range(size - MIB), max(1, 500 * self.size // 4096)))
        with open(self.path(), "rb") as old, open(self.edited(), "wb") as new:
            at = 0
            for place in places:
                if place < at:
                    continue
                old.seek(at)
                copy(old, new, place - at)
                length, kind = rng.randrange(1, 344_000), rng.choice("ido")
                if kind in "io":
                    new.write(rng.randbytes(length))
                at = place if kind == "i" else place + length
            old.seek(at)
            shutil.copyfileobj(old, new, 8 * MIB)

    def path(self):
        return os.path.join(self.root, "disk.img")

    def edited(self):
        return os.path.join(self.side, "disk.img")

    def change(self):
        middle = self.path() + ".swap"
        os.rename(self.path(), middle)
        os.rename(self.edited(), self.path())
        os.rename(middle, self.edited())

    undo = change


class SourceTree(Workload):
    """`size` is about how many MiB."""
    name = "source-tree"

    def make(self):
        left = self.size * MIB
        for source in SOURCES:
            for folder, folders, names in os.walk(source):
                folders.sort()
                target = os.path.join(self.root, os.path.relpath(folder, os.path.dirname(source)))
                os.makedirs(target, exist_ok=True)
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    if os.path.islink(path) or os.path.isfile(path):
                        shutil.copy2(path, os.path.join(target, name), follow_symlinks=False)
                        left -= os.lstat(path).st_size
                if left < 0:
                    return

    def change(self):
        everything = list(files(self.root))
        chosen = sorted(random.Random("lines").sample(everything, max(1, len(everything) // 100)))
        self.save(chosen)
        for path in chosen:
            os.chmod(path, os.stat(path).st_mode | 0o200)
            with open(path, "ab") as file:
                file.write(b"\n// appended by the change\n")


class StateFiles(Workload):
    """`size` is the number of workspaces."""
    name = "state-files"

    def make(self):
        for number in range(self.size):
            rng = random.Random(f"workspace {number}")
            folder = os.path.join(self.root, f"ws-{number:05d}")
            os.makedirs(folder)
            wanted = min(50_000 * 40 ** (rng.random() ** 3.2), 2_000_000)
            resources, length = [], 0
            while length < wanted:
                resources.append(resource(rng, len(resources)))
                length += len(json.dumps(resources[-1], indent=2)) + 400
            write_json(folder, "terraform.tfstate", {
                "version": 4, "terraform_version": "1.9.1", "serial": rng.randrange(1, 400),
                "lineage": f"{rng.getrandbits(128):032x}", "outputs": {}, "resources": resources})
            write_json(folder, "config.json", {
                "workspace": f"ws-{number:05d}", "vcs": {"repo": f"org/infra-{number % 97}", "branch": "main"},
                "variables": [{"key": f"TF_VAR_{k}", "value": f"{rng.getrandbits(64):016x}", "sensitive": k % 2 == 1}
                              for k in range(rng.randrange(3, 30))]})
            write_json(folder, "jobs.json", [
                {"id": f"run-{rng.getrandbits(64):016x}", "status": rng.choice(["applied", "planned", "errored"]),
                 "created": 1_700_000_000 + rng.randrange(10**7), "commit": f"{rng.getrandbits(160):040x}"}
                for _ in range(rng.randrange(10, 120))])

    def change(self):
        numbers = random.Random("serials").sample(range(self.size), max(1, self.size // 20))
        paths = [os.path.join(self.root, f"ws-{number:05d}", "terraform.tfstate") for number in sorted(numbers)]
        self.save(paths)
        for path in paths:
            with open(path) as file:
                state = json.load(file)
            state["serial"] += 1
            chosen = random.Random(path).choice(state["resources"])
            chosen["instances"][0]["attributes"]["private_ip"] = "192.168.77.7"
            write_json(os.path.dirname(path), "terraform.tfstate", state)


def copy(old, new, length):
    while length > 0:
        block = old.read(min(length, 8 * MIB))
        new.write(block)
        length -= len(block)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as file:
        json.dump(value, file, indent=2)


def resource(rng, number):
    kind = rng.choice(TYPES)
    rid = f"{kind[:3]}-{rng.getrandbits(68):017x}"
    return {
        "mode": "managed", "type": kind, "name": f"{kind.split('_')[-1]}_{number}",
        "provider": f'provider["registry.opentofu.org/hashicorp/{kind.split("_")[0]}"]',
        "instances": [{
            "schema_version": 1,
            "attributes": {
                "id": rid, "arn": f"arn:aws:ec2:eu-central-1:{rng.randrange(10**12):012d}:{kind}/{rid}",
                "ami": f"ami-{rng.getrandbits(68):017x}", "availability_zone": "eu-central-1" + rng.choice("abc"),
                "associate_public_ip_address": rng.random() < .5, "cpu_core_count": rng.choice([1, 2, 4, 8]),
                "private_ip": "10.%d.%d.%d" % tuple(rng.randrange(256) for _ in range(3)),
                "ebs_block_device": [{"device_name": f"/dev/sd{letter}", "encrypted": True,
                                      "volume_id": f"vol-{rng.getrandbits(68):017x}",
                                      "volume_size": rng.choice([8, 20, 100])} for letter in "bcd"[:rng.randrange(4)]],
                "tags": {"Name": f"node-{rng.randrange(10**6)}", "team": rng.choice(["core", "data", "edge", "web"]),
                         "env": rng.choice(["prod", "stage", "dev"]), "managed-by": "opentofu"},
                "user_data_hash": f"{rng.getrandbits(160):040x}", "timeouts": None},
            "sensitive_attributes": [], "private": base64.b64encode(rng.randbytes(48)).decode(),
            "dependencies": [f"aws_vpc.main_{rng.randrange(9)}"]}]}
