#!/usr/bin/env python3
"""Do the links of a rehearsed cluster hold their rate?   links.py NODES BITS_PER_S

Every host sends to the next one over TCP, first one pair alone, then all at once, so that every link is
busy in both directions. Prints Mbit/s of payload; ends with 4 if one link alone is more than 10 % off."""
import ctypes
import os
import socket
import statistics
import struct
import sys
import time

WARM_UP_S, TIME_S, MESSAGE_BYTES, PORT, PINGS, TOLERANCE = 0.2, 0.8, 1 << 18, 7000, 200, 0.1
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def enter(host):
    """This process moves to a host's network; sockets made from now on are there."""
    fd = os.open(f"/dev/shm/cluster/host{host}/net", os.O_RDONLY)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        sys.exit(f"rehearse.sh: cannot enter host{host}: {os.strerror(ctypes.get_errno())}")
    os.close(fd)


def receive(host, port, out):
    """Serves one sender: echoes PINGS bytes, then counts what comes in TIME_S after WARM_UP_S."""
    enter(host)
    server = socket.create_server((f"10.83.0.{host + 1}", port))
    os.write(out, b"l" * 16)  # listens
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(PINGS):
        connection.sendall(connection.recv(1))
    buffer, n_byte, start = bytearray(MESSAGE_BYTES), 0, None
    begin = time.monotonic()
    while True:
        n = connection.recv_into(buffer)
        now = time.monotonic()
        if n == 0 or now > begin + WARM_UP_S + TIME_S:
            break
        if start is not None:
            n_byte += n
            last = now
        elif now > begin + WARM_UP_S:
            start = last = now
    os.write(out, struct.pack("dd", n_byte * 8 / (last - start), 0.0))


def send(host, to, port, out):
    enter(host)
    connection = socket.create_connection((f"10.83.0.{to + 1}", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(PINGS):
        begin = time.monotonic()
        connection.sendall(b"p")
        connection.recv(1)
        times.append(time.monotonic() - begin)
    os.write(out, struct.pack("dd", 0.0, statistics.median(times) / 2))
    block = bytes(MESSAGE_BYTES)
    try:
        while True:
            connection.sendall(block)
    except OSError:
        pass  # the receiver has seen enough


def fork(function, *arguments):
    """A child that runs it; what it writes, 16 bytes at a time, comes out of the returned descriptor."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(read_end)
        function(*arguments, write_end)
        os._exit(0)
    os.close(write_end)
    return read_end


def measure(pairs, port):
    """Bits a second of each pair, all at once, and seconds of the median one-way message."""
    receivers = [fork(receive, to, port) for _, to in pairs]
    for fd in receivers:
        os.read(fd, 16)
    senders = [fork(send, host, to, port) for host, to in pairs]
    ways = [struct.unpack("dd", os.read(fd, 16))[1] for fd in senders]
    rates = [struct.unpack("dd", os.read(fd, 16))[0] for fd in receivers]
    for _ in range(2 * len(pairs)):
        os.wait()
    return rates, ways


def main():
    n_host, asked = int(sys.argv[1]), float(sys.argv[2])
    if n_host < 2:
        print("one host has no link to check")
        return 0
    ring = [(i, (i + 1) % n_host) for i in range(n_host)]
    print(f"asked: {asked / 1e6:.0f} Mbit/s a link; payload of TCP, {TIME_S} s each:")
    off = []
    for what, pairs, port in (("one pair", ring[:1], PORT), ("every host to the next", ring, PORT + 1)):
        rates, ways = measure(pairs, port)
        worst = max(rates, key=lambda rate: abs(rate - asked))
        off.append(abs(worst - asked) > TOLERANCE * asked)
        print(f"  {what}: mean {statistics.mean(rates) / 1e6:.1f}, furthest off {worst / 1e6:.1f} Mbit/s "
              f"({worst / asked:.3f} of asked); a byte one way {statistics.median(ways) * 1e6:.0f} us")
    sys.stdout.flush()
    if off[0]:
        print("rehearse.sh: a link does not hold its rate on this machine; expected 10 % at most; take the "
              "cluster down and start it with a lower --rate, or end what else is running", file=sys.stderr)
        return 4
    if off[1]:
        print(f"note: this machine carries {sum(rates) / 1e6:.0f} Mbit/s over all links at once, less than "
              "all of them together: a job that fills every link at the same moment sees slower ones")
    return 0


if __name__ == "__main__":
    sys.exit(main())
