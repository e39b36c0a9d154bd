"""Writers through four nodes while the fifth is killed and brought back: DYNAMO RING-DIR PORT…

No operation may fail, no acknowledged increment may be lost or doubled. The longest time without a
success is printed and not judged.
"""

import subprocess
import sys
import threading
import time

import redis
from checks import check, done, equal

DYNAMO, RING = sys.argv[1:3]
PORTS = [int(port) for port in sys.argv[3:]]
VICTIM, VICTIM_AT = "5558", 2  # It coordinates nearly half of the shipped ring.
KEYS = [f"killed:{i}" for i in range(20)]
PHASE = 400  # operations in each phase


def dynamo(*arguments):
    command = [DYNAMO, *arguments, "--config", f"{RING}/cluster.toml", "--data-dir", f"{RING}/data"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Writers:
    """Threads that increment, each through one of the living nodes."""

    def __init__(self, ports):
        self.lock = threading.Lock()
        self.moved = threading.Condition(self.lock)
        self.acknowledged = dict.fromkeys(KEYS, 0)
        self.total, self.longest, self.last = 0, 0.0, time.monotonic()
        self.errors = []
        self.stop = False
        self.threads = [
            threading.Thread(target=self.write, args=(port, first), daemon=True)
            for first, port in enumerate(ports * 2)
        ]
        for thread in self.threads:
            thread.start()

    def write(self, port, first):
        # No retries of its own: an increment sent twice would be counted twice.
        connection = redis.Redis(port=port, retry=None, socket_timeout=10)
        turn = first
        while not self.stop:
            key = KEYS[turn % len(KEYS)]
            turn += 1
            try:
                connection.incr(key)
            except redis.RedisError as error:
                with self.lock:
                    self.errors.append(error)
                    self.moved.notify_all()
                return
            with self.lock:
                now = time.monotonic()
                self.longest, self.last = max(self.longest, now - self.last), now
                self.acknowledged[key] += 1
                self.total += 1
                self.moved.notify_all()

    def more(self):
        """Waits for the operations of one phase."""
        with self.lock:
            goal = self.total + PHASE
            while self.total < goal and not self.errors:
                assert self.moved.wait(30), "no operation has ended for 30 s"

    def end(self):
        self.stop = True
        for thread in self.threads:
            thread.join()


@check
def a_killed_node_costs_its_own_connections_only():
    writers = Writers([port for at, port in enumerate(PORTS) if at != VICTIM_AT])
    try:
        writers.more()
        for go_away, come_back in [("kill", "start"), ("pause", "resume")]:
            dynamo(go_away, VICTIM)
            writers.more()
            dynamo(come_back, VICTIM)
            writers.more()
    finally:
        writers.end()
    print(f"{writers.total} increments, {writers.longest * 1000:.0f} ms the longest time without one")
    equal(writers.errors, [])
    for port in PORTS:
        seen = [int(value) for value in redis.Redis(port=port).mget(KEYS)]
        equal(seen, [writers.acknowledged[key] for key in KEYS])


done()
