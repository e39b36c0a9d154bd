"""redis-py against a ring: PROTOCOL PORT…"""

import sys
import threading

import redis
from checks import check, done, equal, refused

PROTOCOL = int(sys.argv[1])
PORTS = [int(port) for port in sys.argv[2:]]
FAR = 4_102_444_800  # 2100-01-01, Unix seconds


def client(at=0, **options):
    return redis.Redis(port=PORTS[at], protocol=PROTOCOL, decode_responses=True, **options)


r = client()
PREFIX = f"py{PROTOCOL}:"


def key(name):
    return PREFIX + name


@check
def redis_py_ping_echo_time_info():
    equal(r.ping(), True)
    equal(r.echo("hello"), "hello")
    assert r.time()[0] > 1_700_000_000
    equal(r.info()["redis_mode"], "standalone")
    assert "maxclients" in r.config_get("max*")
    assert r.command_count() > 50


@check
def redis_py_set_with_every_option():
    k = key("options")
    equal(r.set(k, "1"), True)
    equal(r.set(k, "2", nx=True), None)
    equal(r.set(k, "2", xx=True), True)
    equal(r.set(k, "3", get=True), "2")
    equal(r.set(k, "4", ex=1000), True)
    assert 990 < r.ttl(k) <= 1000
    equal(r.set(k, "5", keepttl=True), True)
    assert 990 < r.ttl(k) <= 1000
    equal(r.set(k, "6", px=500_000), True)
    assert 490_000 < r.pttl(k) <= 500_000
    equal(r.set(k, "7", exat=FAR), True)
    equal(r.expiretime(k), FAR)
    equal(r.set(k, "8", pxat=FAR * 1000 + 5), True)
    equal(r.pexpiretime(k), FAR * 1000 + 5)
    equal(r.set(k, "9"), True)
    equal(r.ttl(k), -1)
    equal(r.get(k), "9")


@check
def redis_py_compare_and_set():
    k = key("cas")
    r.set(k, "a")
    equal(r.execute_command("SET", k, "b", "IFEQ", "a"), True)
    equal(r.execute_command("SET", k, "c", "IFEQ", "a"), None)
    equal(r.execute_command("DELIFEQ", k, "a"), 0)
    equal(r.execute_command("DELIFEQ", k, "b"), 1)


@check
def redis_py_numbers():
    k = key("number")
    equal(r.incr(k), 1)
    equal(r.incrby(k, 41), 42)
    equal(r.decr(k), 41)
    equal(r.decrby(k, 1), 40)
    equal(r.incrbyfloat(k, 0.5), 40.5)
    refused(lambda: r.incr(k), "not an integer")


@check
def redis_py_strings():
    k = key("string")
    equal(r.append(k, "abcdef"), 6)
    equal(r.strlen(k), 6)
    equal(r.getrange(k, 1, 3), "bcd")
    equal(r.setrange(k, 2, "XY"), 6)
    equal(r.getset(k, "new"), "abXYef")
    equal(r.getex(k, ex=100), "new")
    assert 90 < r.ttl(k) <= 100
    equal(r.type(k), "string")
    equal(r.getdel(k), "new")
    equal(r.get(k), None)


@check
def redis_py_bytes_of_every_kind():
    raw = redis.Redis(port=PORTS[1], protocol=PROTOCOL)
    every = bytes(range(256)) * 4096  # 1 MiB, the largest value
    name = b"\x00\r\n\xff" + PREFIX.encode()
    equal(raw.set(name, every), True)
    equal(raw.get(name), every)
    refused(lambda: raw.set(name, every + b"x"), "largest")
    equal(raw.get(name), every)
    equal(raw.delete(name), 1)


@check
def redis_py_expiry():
    k = key("expiry")
    r.set(k, "v")
    equal(r.expire(k, 100), True)
    equal(r.expire(k, 200, nx=True), False)
    equal(r.expire(k, 200, gt=True), True)
    equal(r.pexpire(k, 150_000, lt=True), True)
    equal(r.expireat(k, FAR), True)
    equal(r.expiretime(k), FAR)
    equal(r.persist(k), True)
    equal(r.ttl(k), -1)
    r.pexpireat(k, 1)
    equal([client(at).get(k) for at in range(len(PORTS))], [None] * len(PORTS))


@check
def redis_py_many_keys():
    pairs = {key(f"many:{i}"): str(i) for i in range(50)}
    equal(r.mset(pairs), True)
    equal(r.mget([*pairs, key("none")]), [*pairs.values(), None])
    equal(r.exists(*pairs), 50)
    equal(r.touch(*pairs), 50)
    for at in range(len(PORTS)):
        equal(set(client(at).scan_iter(match=key("many:*"), count=7)), set(pairs))
    equal(set(r.keys(key("many:*"))), set(pairs))
    assert r.dbsize() >= 50
    assert r.randomkey() is not None
    equal(r.unlink(*list(pairs)[:10]), 10)
    equal(r.delete(*pairs), 40)


@check
def redis_py_pipeline():
    pipe = r.pipeline(transaction=False)
    for i in range(500):
        pipe.set(key(f"pipe:{i % 50}"), i)
        pipe.get(key(f"pipe:{i % 50}"))
        pipe.incr(key("pipe:count"))
    replies = pipe.execute()
    equal(replies[0::3], [True] * 500)
    equal(replies[1::3], [str(i) for i in range(500)])
    equal(replies[2::3], list(range(1, 501)))


@check
def redis_py_error_in_a_pipeline_stays_in_its_place():
    r.set(key("text"), "no number")
    pipe = r.pipeline(transaction=False)
    pipe.incr(key("text")).set(key("after"), "1").get(key("after"))
    replies = pipe.execute(raise_on_error=False)
    assert isinstance(replies[0], redis.ResponseError), replies
    equal(replies[1:], [True, "1"])


@check
def redis_py_transactions_are_refused():
    # The caller learns it. What stood between MULTI and EXEC has run all the same: see the README.
    pipe = r.pipeline(transaction=True).set(key("multi"), "1")
    refused(pipe.execute, "unknown command")


@check
def redis_py_written_at_one_node_read_at_all():
    for at in range(len(PORTS)):
        client(at).set(key("everywhere"), at)
        seen = [client(other).get(key("everywhere")) for other in range(len(PORTS))]
        equal(seen, [str(at)] * len(PORTS))


@check
def redis_py_connection_pool_and_health_check():
    pool = redis.ConnectionPool(
        port=PORTS[2], protocol=PROTOCOL, health_check_interval=0.001, max_connections=16
    )
    wrong = []

    def work():
        mine = redis.Redis(connection_pool=pool)
        try:
            for _ in range(50):
                mine.incr(key("pool"))
        except redis.RedisError as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [])
    equal(r.get(key("pool")), "400")
    pool.disconnect()


@check
def redis_py_client_commands():
    named = client(client_name="named")
    equal(named.client_getname(), "named")
    assert named.client_id() > 0
    assert any(row["name"] == "named" for row in named.client_list())
    equal(named.client_info()["resp"], str(PROTOCOL))
    equal(named.wait(1, 100), 1)


@check
def redis_py_commands_of_the_ring():
    r.set(key("where"), "v")
    holders = r.execute_command("DYNAMO", "WHERE", key("where"))
    equal(len(set(holders)), 3)
    ring = r.execute_command("DYNAMO", "RING")
    equal(len(ring), len(PORTS))


done()
