"""redis-py against a ring with a password: PROTOCOL PASSWORD PORT…"""

import sys

import redis
from checks import check, done, equal

PROTOCOL, PASSWORD = int(sys.argv[1]), sys.argv[2]
PORTS = [int(port) for port in sys.argv[3:]]


def client(at, **options):
    return redis.Redis(port=PORTS[at], protocol=PROTOCOL, decode_responses=True, **options)


@check
def redis_py_with_the_password():
    for at in range(len(PORTS)):
        assert client(at, password=PASSWORD).set(f"py{PROTOCOL}", at)
        equal(client(at, username="default", password=PASSWORD).get(f"py{PROTOCOL}"), str(at))


@check
def redis_py_without_the_password():
    for options in [{}, {"password": "wrong"}, {"username": "someone", "password": PASSWORD}]:
        try:
            seen = client(1, **options).get(f"py{PROTOCOL}")
        except redis.AuthenticationError:
            continue
        raise AssertionError(f"{options} was let in and saw {seen!r}")


done()
