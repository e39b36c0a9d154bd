#!/usr/bin/env python3
"""What flow records cost: the same binary with flow off, sampled and all, in turns.

    cargo build --release && tests/flow/cost.py [--starts 12] [--rounds 5] [--durability os] [--modes off,sampled]

Rings of five, one of each mode, run side by side in temporary directories on free ports, warmed up
until their memories of records are full. A turn lets redis-benchmark (Debian: redis-tools) set and get
random keys at one node of one ring, while the others have nothing to do, and takes the processor time
(user and system) that its five processes used for it. A round is one turn of each ring, in random order.

Two rings of the very same program and mode differ by up to 3 % as long as they run: by where their
memory lies, it seems. So the rings are started anew several times, and one start counts as one
measurement: the ratio of what the rings of that start did, all rounds together. Printed are the means
over the starts and, of the ratios, the standard error.
"""

import argparse
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import tempfile
import time

IDS = (5554, 5556, 5558, 5560, 5562)
MODES = ("off", "sampled", "all")
HERE = pathlib.Path(__file__).resolve().parent


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def processor_seconds(pids):
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def benchmark(port, requests, clients, keys):
    subprocess.run(
        ["redis-benchmark", "-q", "-p", str(port), "-n", str(requests), "-c", str(clients),
         "-r", str(keys), "-d", "100", "-t", "set,get"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )


class Ring:
    """Five processes in one mode."""

    def __init__(self, dynamo, mode, arguments):
        self.work = tempfile.TemporaryDirectory()
        ports = free_ports(15)
        config = f'durability = "{arguments.durability}"\n[logging]\nflow = "{mode}"\n'
        config += f'flow_memory = "{arguments.memory}"\n' if arguments.memory else ""
        for at, node in enumerate(IDS):
            client, peer, http = ports[3 * at:3 * at + 3]
            config += (f'[[node]]\nid = {node}\nclient = "127.0.0.1:{client}"\n'
                       f'peer = "127.0.0.1:{peer}"\nhttp = "127.0.0.1:{http}"\n')
        file = pathlib.Path(self.work.name, "cluster.toml")
        file.write_text(config)
        data = f"{self.work.name}/data"
        self.up = subprocess.Popen([dynamo, "up", "--config", file, "--data-dir", data],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.up.stdout:
            if line.startswith("redis-cli"):
                break
        self.port = ports[0]
        self.pids = [int(pathlib.Path(data, f"{node}/pid").read_text()) for node in IDS]

    def turn(self, arguments):
        """Microseconds of processor time an operation, and operations a second."""
        before, start = processor_seconds(self.pids), time.monotonic()
        benchmark(self.port, arguments.requests, arguments.clients, arguments.keys)
        wall = time.monotonic() - start
        time.sleep(0.1)
        operations = 2 * arguments.requests
        return ((processor_seconds(self.pids) - before) / operations * 1e6, operations / wall)

    def stop(self):
        self.up.send_signal(signal.SIGINT)
        self.up.wait()
        self.work.cleanup()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modes", default=",".join(MODES), help="compared with the first")
    parser.add_argument("--requests", type=int, default=15_000)
    parser.add_argument("--warm", type=int, default=60_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--durability", default="sync", choices=("sync", "os"))
    parser.add_argument("--memory", help="flow_memory, where it is not the default")
    parser.add_argument("--dynamo", default=str(HERE / "../../target/release/dynamo"))
    arguments = parser.parse_args()
    modes = arguments.modes.split(",")
    starts = []
    for number in range(arguments.starts):
        starts.append(one_start(modes, arguments))
        row = "  ".join(f"{mode} {micros:.1f} µs {rate:.0f}/s"
                        for mode, (micros, rate) in starts[-1].items())
        print(f"start {number + 1}: {row}", flush=True)
    for mode in modes:
        micros, rate = (statistics.mean(start[mode][which] for start in starts) for which in (0, 1))
        print(f"{mode:8} {micros:7.1f} µs of processor time an operation "
              f"({ratio(starts, mode, modes[0], 0)} of {modes[0]}), "
              f"{rate:7.0f} operations/s ({ratio(starts, mode, modes[0], 1)} of {modes[0]})")


def one_start(modes, arguments):
    """Of each mode, microseconds an operation and operations a second, all rounds together."""
    rings = {}
    try:
        for mode in random.sample(modes, len(modes)):
            rings[mode] = Ring(arguments.dynamo, mode, arguments)
            benchmark(rings[mode].port, arguments.warm, arguments.clients, arguments.keys)
        seen = {mode: [] for mode in modes}
        for _ in range(arguments.rounds):
            for mode in random.sample(modes, len(modes)):
                seen[mode].append(rings[mode].turn(arguments))
    finally:
        for ring in rings.values():
            ring.stop()
    return {mode: (statistics.mean(micros for micros, _ in turns),
                   statistics.harmonic_mean([rate for _, rate in turns]))
            for mode, turns in seen.items()}


def ratio(starts, mode, base, which):
    ratios = [start[mode][which] / start[base][which] for start in starts]
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    return f"{statistics.mean(ratios):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
