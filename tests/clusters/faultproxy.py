#!/usr/bin/env python3
"""A TCP proxy that misbehaves on request.

    faultproxy.py LISTEN_PORT CONTROL_PORT TARGET_PORT...

Connections go to the first target that takes them, in turn, as a load balancer does. Faults are
set and counters read over HTTP: http://127.0.0.1:CONTROL_PORT/?latency=30&jitter=10

    latency, jitter  milliseconds before what was read is passed on, both ways
    kbps             kilobits a second of each connection and direction
    cut_after        a connection is reset once this many bytes went through it
    reset_prob       the share of new connections that is reset at once
    forget           1: from now on no request was made before (`repeated` counts those that were)
    cut_all          1: every connection there is now is reset (once)
    blackhole        1: nothing is passed on, connections stay open
    half             1: what the server says is dropped, connections stay open
    down             1: new connections are reset
"""
import asyncio
import itertools
import random
import re
import socket
import struct
import sys
import time
from urllib.parse import parse_qs, urlparse

listen_port, control_port, *targets = map(int, sys.argv[1:])
faults = dict.fromkeys("latency jitter kbps cut_after reset_prob forget cut_all blackhole half down".split(), 0.0)
counts = dict.fromkeys("connections refused reset up down_bytes requests repeated".split(), 0)
turn = itertools.count()
pairs = set()
asked = set()


def count_request(data):
    """If this begins a request (HTTP/1.1 sends one at a time), whether the same was made before."""
    if not re.match(rb"(GET|HEAD|PUT|POST|DELETE|PROPFIND|MOVE|MKCOL) /", data):
        return
    line = data.split(b"\r\n", 1)[0]
    of = re.search(rb"(?i)\r\nrange: *([^\r]*)", data)
    request = (line, of and of[1])
    counts["requests"] += 1
    counts["repeated"] += request in asked
    asked.add(request)


def reset(writer):
    """Ends a connection by a reset and not by an orderly close."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Pair:
    """A connection of a client and the one to a server that belongs to it."""

    def __init__(self, *writers):
        self.writers, self.bytes = writers, 0

    def cut(self):
        counts["reset"] += 1
        for writer in self.writers:
            reset(writer)


async def pump(reader, writer, pair, counter):
    """Passes on what comes, each piece after the latency but not after the one before it: what is
    on its way at once is bounded by memory, as in a long cable, and not by round trips."""
    way = asyncio.Queue(maxsize=128)

    async def deliver():
        try:
            while piece := await way.get():
                due, data = piece
                await asyncio.sleep(max(0, due - time.monotonic()))
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            for one in pair.writers:
                one.transport.abort()
            while await way.get():
                pass

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(65536):
            while faults["blackhole"]:
                await asyncio.sleep(0.05)
            if faults["half"] and counter == "down_bytes":
                continue
            if counter == "up":
                count_request(data)
            if faults["kbps"]:
                await asyncio.sleep(len(data) * 8 / (faults["kbps"] * 1e3))
            pair.bytes += len(data)
            counts[counter] += len(data)
            if faults["cut_after"] and pair.bytes > faults["cut_after"]:
                pair.cut()
                return
            wait = faults["latency"] + random.uniform(-1, 1) * faults["jitter"]
            await way.put((time.monotonic() + max(0, wait / 1e3), data))
        await way.put(None)
        await delivery
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        delivery.cancel()
        writer.close()


async def client(reader, writer):
    counts["connections"] += 1
    if faults["down"] or random.random() < faults["reset_prob"]:
        counts["reset"] += 1
        reset(writer)
        return
    first = next(turn)
    for n in range(len(targets)):
        try:
            there = await asyncio.open_connection("127.0.0.1", targets[(first + n) % len(targets)])
            break
        except OSError:
            continue
    else:
        counts["refused"] += 1
        reset(writer)
        return
    pair = Pair(writer, there[1])
    pairs.add(pair)
    await asyncio.gather(pump(reader, there[1], pair, "up"), pump(there[0], writer, pair, "down_bytes"))
    pairs.discard(pair)


async def control(reader, writer):
    line = (await reader.readline()).decode().split()
    for name, values in parse_qs(urlparse(line[1]).query).items():
        if name in faults:
            faults[name] = float(values[0])
    if faults["forget"]:
        faults["forget"] = 0.0
        asked.clear()
    if faults["cut_all"]:
        faults["cut_all"] = 0.0
        for pair in list(pairs):
            pair.cut()
    body = "\n".join(f"{name} {value}" for name, value in {**faults, **counts}.items()).encode()
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


async def main():
    proxy = await asyncio.start_server(client, "127.0.0.1", listen_port, backlog=256)
    lever = await asyncio.start_server(control, "127.0.0.1", control_port)
    await asyncio.gather(proxy.serve_forever(), lever.serve_forever())


asyncio.run(main())
