#!/usr/bin/env python3
"""What flow records cost: the same binary with flow off, sampled and all, in turns.

    cargo build --release && tests/flow/cost.py [--rounds 5] [--requests 20000] [--durability os]

Each turn starts a ring of five in a temporary directory on free ports, warms it up, lets
redis-benchmark (Debian: redis-tools) set and get random keys at one node, and takes the processor
time (user and system) that the five processes used for it. A round is one turn of each mode, in changing
order; ratios are within a round, so that a machine whose speed changes disturbs them little. Printed
are the medians: microseconds of processor time an operation, and operations a second.
"""

import argparse
import os
import pathlib
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


def turn(dynamo, mode, arguments):
    with tempfile.TemporaryDirectory() as work:
        ports = free_ports(15)
        config = f'durability = "{arguments.durability}"\n[logging]\nflow = "{mode}"\n'
        config += f'flow_memory = "{arguments.memory}"\n' if arguments.memory else ""
        for at, node in enumerate(IDS):
            client, peer, http = ports[3 * at:3 * at + 3]
            config += (f'[[node]]\nid = {node}\nclient = "127.0.0.1:{client}"\n'
                       f'peer = "127.0.0.1:{peer}"\nhttp = "127.0.0.1:{http}"\n')
        file = pathlib.Path(work, "cluster.toml")
        file.write_text(config)
        up = subprocess.Popen([dynamo, "up", "--config", file, "--data-dir", f"{work}/data"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            for line in up.stdout:
                if line.startswith("redis-cli"):
                    break
            benchmark(ports[0], arguments.requests // 4, arguments.clients, arguments.keys)
            pids = [int(pathlib.Path(work, f"data/{node}/pid").read_text()) for node in IDS]
            before, start = processor_seconds(pids), time.monotonic()
            benchmark(ports[0], arguments.requests, arguments.clients, arguments.keys)
            wall = time.monotonic() - start
            time.sleep(0.1)
            operations = 2 * arguments.requests
            return ((processor_seconds(pids) - before) / operations * 1e6, operations / wall)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--durability", default="sync", choices=("sync", "os"))
    parser.add_argument("--memory", help="flow_memory, where it is not the default")
    parser.add_argument("--dynamo", default=str(HERE / "../../target/release/dynamo"))
    arguments = parser.parse_args()
    seen = {mode: [] for mode in MODES}
    for number in range(arguments.rounds):
        turned = number % len(MODES)
        for mode in MODES[turned:] + MODES[:turned]:
            seen[mode].append(turn(arguments.dynamo, mode, arguments))
        row = "  ".join(f"{mode} {seen[mode][-1][0]:.1f} µs {seen[mode][-1][1]:.0f}/s"
                        for mode in MODES)
        print(f"round {number + 1}: {row}", flush=True)
    for mode in MODES:
        micros = statistics.median(run[0] for run in seen[mode])
        rate = statistics.median(run[1] for run in seen[mode])
        costs = statistics.median(a[0] / b[0] for a, b in zip(seen[mode], seen["off"]))
        rates = statistics.median(a[1] / b[1] for a, b in zip(seen[mode], seen["off"]))
        print(f"{mode:8} {micros:7.1f} µs of processor time an operation ({costs:.3f} of off), "
              f"{rate:7.0f} operations/s ({rates:.3f} of off)")


if __name__ == "__main__":
    main()
