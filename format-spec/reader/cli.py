"""The command line: `python3 format-spec/reader COMMAND …`, described in README.md."""

import argparse
import os
import sys
import time

import check
import records
import recovery
import vectors
from conventions import Absent, Refused
from repository import Repository
from restore import Restore


def run(arguments):
    """Runs a command, and gives the program's exit code."""
    parser = argparse.ArgumentParser(prog="reader", description="Reads Esker repositories, by SPEC.md alone")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("snapshots", "list snapshots, oldest first"),
        ("restore", "bring a snapshot back, into an empty directory"),
        ("check", "read all packs and all snapshots"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("repository")
        key = command.add_mutually_exclusive_group(required=True)
        key.add_argument("--password-file")
        key.add_argument("--key-file")
        if name == "restore":
            command.add_argument("snapshot", help="an id, the beginning of one, or `latest`")
            command.add_argument("target")
    commands.add_parser("vectors", help="compare with the vectors").add_argument("directory")
    arguments = parser.parse_args(arguments)
    try:
        return globals()["run_" + arguments.command](arguments)
    except (Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def warn(what):
    print(f"warning: {what}", file=sys.stderr)


def unlock(arguments):
    if arguments.key_file:
        with open(arguments.key_file, "rb") as file:
            data = file.read(1 << 24)
        key = recovery.read_sheet(data) if recovery.is_sheet(data) else records.read_key_file(data)
        return lambda repository: repository.seed_of_key(key)
    with open(arguments.password_file, "rb") as file:
        password = file.read(1 << 20).removesuffix(b"\n").removesuffix(b"\r")
    return lambda repository: repository.seed_of_password(password)


def open_repository(arguments):
    return Repository(arguments.repository, unlock(arguments), warn)


def run_snapshots(arguments):
    for snapshot in open_repository(arguments).snapshots():
        record = snapshot.record
        roots = b" ".join(record.get(7, [])).decode("utf-8", "backslashreplace")
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record[1]))
        print(snapshot.session.hex(), when, record[3], roots, snapshot.state, sep="\t")
    return 0


def run_restore(arguments):
    repository = open_repository(arguments)
    found = repository.snapshots()
    if arguments.snapshot == "latest":
        found = [one for one in found if not one.state][-1:]
    else:
        found = [one for one in found if one.session.hex().startswith(arguments.snapshot)]
    if len(found) != 1:
        raise Absent(f"{len(found)} snapshots are `{arguments.snapshot}`, not one")
    problems = []

    def report(path, problem):
        problems.append(path)
        print(f"{os.fsdecode(path)}: {problem}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)

    Restore(repository.tree(), report).run(found[0].record[10], os.fsencode(arguments.target))
    return 5 if problems else 0


def run_check(arguments):
    faults = check.run(open_repository(arguments))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 4 if faults else 0


def run_vectors(arguments):
    return vectors.run(arguments.directory)
