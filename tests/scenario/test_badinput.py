#!/usr/bin/env python3
"""Clients that send nonsense, too much, too little or nothing, while a healthy one goes on."""
import array
import contextlib
import json
import os
import resource
import socket
import struct
import subprocess

import wire
from harness import BUILD, Host, clean_environment, last_of, text_of
from tap import check, equal, main, wait_for

FRAMES = 1_000_000
# What follows a bad frame is never read: more are sent than that.
SENT = 7 * FRAMES // 2
IDLE = 2_000
HEALTHY = 'openai/fake?chunks=20&delay_ms=2'
BODY = '{"messages":[{"role":"user","content":"x"}],"stream":true}'
PROTOCOL, VERSION, BUSY, BAD_REQUEST = 1, 2, 4, 5
MIB = 1024


@contextlib.contextmanager
def busy_host(**sections):
    """A daemon with a healthy client that runs throughout and is unaffected by everything."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with Host() as host:
        fake = host.fake()
        sections.setdefault('log', {'level': 'error'})
        host.configure(providers=[host.provider('openai', fake)], connections_per_user=5000,
                       **sections)
        host.start()
        expect = text_of(host.chat('hello', '-m', HEALTHY))
        worker = host.load(HEALTHY, expect, '--streams', '2')
        yield host, fake
        check(host.daemon.poll() is None, 'the daemon lives')
        answers = lambda: host.dump()['counters']['requests_succeeded']  # noqa: E731
        before = answers()
        wait_for(lambda: answers() > before + 3, what='the healthy client goes on')
        lines = host.finish_load(worker)
        equal([line for line in lines if line['event'] == 'error'], [], 'healthy client')
        check(lines[-1]['ended'] > 0, 'the healthy client got answers')
        print(f'# healthy client: {lines[-1]["ended"]} answers, none bad')
        wait_for(lambda: host.status()['requests_active'] == 0, what='the daemon is idle')
        wait_for(lambda: host.dump()['counters']['connections_open'] == 0, what='all are gone')
        equal(last_of(host.chat('x', '-m', 'openai/fake'))['type'], 'end', 'and works')


def refusal(path, data, hello=True, timeout=20, end=False):
    """What the daemon says to raw bytes: (status, message) of the error that ends the connection."""
    client = wire.Client(path, hello=hello, timeout=timeout)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.socket.sendall(data)
        if end:
            client.socket.shutdown(socket.SHUT_WR)
        while True:
            kind, request_id, body = client.read()
            if kind == wire.ERROR and request_id == 0:
                with_end = body['status'], body.get('message', '')
                break
        try:
            client.read()
            raise AssertionError('a frame after the error that ends the connection')
        except (wire.Lost, ConnectionResetError):
            return with_end
    finally:
        client.close()


# ---- a million frames ----

def test_a_million_frames():
    with busy_host() as (host, _):
        flood = [os.path.join(BUILD, 'tests', 'scenario', 'scenario-flood'), host.socket]
        subprocess.run([*flood, '7', str(FRAMES // 10)], check=True, timeout=120,
                       stdout=subprocess.DEVNULL)
        before = host.resident()
        with subprocess.Popen([*flood, '1', str(SENT)], stdout=subprocess.PIPE, text=True) as run:
            host.workers.append(run)
            out, _ = run.communicate(timeout=250)
        equal(run.returncode, 0, 'the flood: ' + out)
        sent = json.loads(out)
        counters = host.dump()['counters']
        print(f'# sent {sent["frames"]} frames on {sent["connections"]} connections; the daemon read '
              f'{counters["frames_in"]}, refused {counters["frames_bad"]}; memory {before} KiB before, '
              f'{host.resident()} KiB after')
        check(counters['frames_in'] > FRAMES, 'a million were looked at')
        check(counters['frames_bad'] > FRAMES / 50, 'and many refused')
        check(host.resident() < before + 16 * MIB, 'memory')


# ---- single frames ----

def test_bombs_and_oversize_are_refused_before_they_cost_anything():
    header = lambda length, kind=wire.SUBMIT, flags=0, reserved=0: struct.pack(  # noqa: E731
        '<IBBHQ', length, kind, flags, reserved, 1)
    bombs = {
        'oversize': header(64 << 20),
        'largest length': header(0xffffffff),
        'flags': header(1, flags=1) + b'\x80',
        'reserved': header(1, reserved=1) + b'\x80',
        'array of 2^32': wire.frame(wire.SUBMIT, 1, raw=b'\xdd\xff\xff\xff\xff'),
        'map of 2^32': wire.frame(wire.SUBMIT, 1, raw=b'\xdf\xff\xff\xff\xff'),
        'string of 2^32': wire.frame(wire.SUBMIT, 1, raw=b'\xdb\xff\xff\xff\xff'),
        'bytes of 2^32': wire.frame(wire.SUBMIT, 1, raw=b'\x81\xa4body\xc6\xff\xff\xff\xff'),
        'depth': wire.frame(wire.SUBMIT, 1, raw=b'\x91' * 100_000 + b'\xc0'),
        'depth of maps': wire.frame(wire.SUBMIT, 1, raw=b'\x81\xa1a' * 30_000 + b'\xc0'),
        'count': wire.frame(wire.SUBMIT, 1, raw=b'\x81\xa1a\xdc\xff\xff' + b'\xc0' * 65535),
        'nothing': wire.frame(wire.SUBMIT, 1, raw=b''),
        'no map': wire.frame(wire.SUBMIT, 1, raw=b'\xc0'),
        'trailing': wire.frame(wire.STATUS, 1, raw=b'\x80\x80'),
        'ext': wire.frame(wire.SUBMIT, 1, raw=b'\x81\xa1a\xd4\x01\x01'),
        'utf8': wire.frame(wire.SUBMIT, 1, {'body': BODY}).replace(b'body', b'bo\xffy'),
        'twice': wire.frame(wire.SUBMIT, 1, raw=b'\x82' + (wire.pack('model') + wire.pack('m')) * 2),
        'key is a number': wire.frame(wire.SUBMIT, 1, raw=b'\x81\x01\x02'),
    }
    with busy_host() as (host, _):
        before = host.resident()
        for what, data in bombs.items():
            status, message = refusal(host.socket, data)
            equal(status, PROTOCOL, what)
            check(message, f'{what}: says why')
        check(host.resident() < before + 4 * MIB, f'{before} to {host.resident()} KiB')
        equal(refusal(host.socket, struct.pack('<IBBHQ', 5000, wire.HELLO, 0, 0, 0), hello=False)[0],
              PROTOCOL, 'a HELLO of 5000 bytes')


def test_a_large_frame_costs_what_was_sent_of_it():
    """200 clients announce 16 MiB each and send one byte."""
    with busy_host() as (host, _):
        before = host.resident()
        clients = [wire.Client(host.socket) for _ in range(200)]
        for client in clients:
            client.socket.sendall(struct.pack('<IBBHQ', 16 << 20, wire.SUBMIT, 0, 0, 1) + b'\x81')
        equal(last_of(host.chat('x', '-m', 'openai/fake'))['type'], 'end', 'others are served')
        check(host.resident() < before + 8 * MIB, f'{before} to {host.resident()} KiB')
        for client in clients:
            client.close()


def test_the_order_of_frames_is_kept():
    submit = wire.frame(wire.SUBMIT, 7, {'model': 'openai/fake?chunks=9999&delay_ms=50', 'body': BODY})
    hello = wire.frame(wire.HELLO, 0, {'version_min': 1, 'version_max': 1})
    with busy_host() as (host, _):
        for what, data, greeted in (
                ('a frame before HELLO', submit, False),
                ('STATUS before HELLO', wire.frame(wire.STATUS, 1), False),
                ('HELLO twice', hello, True),
                ('an unknown type', wire.frame(0x7f, 1), True),
                ('type 0', wire.frame(0, 1), True),
                ("a daemon's frame", wire.frame(wire.TEXT, 1, raw=wire.pack('x')), True),
                ('id 0', submit[:8] + bytes(8) + submit[16:], True),
                ('an id that is open', submit + submit, True),
                ('HELLO without versions', wire.frame(wire.HELLO, 0, {}), False)):
            equal(refusal(host.socket, data, hello=greeted)[0], PROTOCOL, what)
        client = wire.Client(host.socket)
        client.send(wire.CANCEL, 99)
        client.send(wire.STATUS, 5)
        kind, got, body = client.read()
        equal((kind, got), (wire.STATUS_REPLY, 5), 'a CANCEL of an unknown id is ignored')
        equal(json.loads(body['json'])['pid'], host.daemon.pid, 'pid')
        client.submit(6, 'openai/fake', 'not json')
        equal(client.read_to_end(6)[-1][1]['status'], BAD_REQUEST, 'a bad body ends the request')
        client.submit(6, 'openai/fake', BODY)
        equal(client.read_to_end(6)[-1][0], wire.END, 'and not the connection; the id is free')
        client.close()


def test_versions_without_overlap_name_both_ranges():
    with busy_host() as (host, _):
        for low, high in ((2, 3), (0, 0), (9, 4_000_000_000)):
            hello = wire.frame(wire.HELLO, 0, {'version_min': low, 'version_max': high})
            status, message = refusal(host.socket, hello, hello=False)
            equal(status, VERSION, f'{low} to {high}')
            check(f'{low} to {high}' in message and '1 to 1' in message, message)
        newer = wire.Client(host.socket, hello=False)
        newer.send(wire.HELLO, 0, {'version_min': 1, 'version_max': 7, 'new_key': {'x': [1]}})
        kind, _, body = newer.read()
        equal((kind, body['version']), (wire.WELCOME, 1), 'a newer client that still knows 1')
        newer.close()


def test_a_hello_that_contradicts_itself_is_refused():
    with busy_host() as (host, _):
        for hello, why in ((wire.frame(wire.HELLO, 0, {'version_min': 3, 'version_max': 1}), 'above'),
                           (wire.frame(wire.HELLO, 7, {'version_min': 1, 'version_max': 1}), 'id 0')):
            status, message = refusal(host.socket, hello, hello=False)
            equal(status, PROTOCOL, message)
            check(why in message, message)


# ---- connections ----

def test_two_thousand_idle_connections():
    with busy_host() as (host, _):
        before = host.resident()
        idle = [socket.socket(socket.AF_UNIX) for _ in range(IDLE)]
        hello = wire.frame(wire.HELLO, 0, {'version_min': 1, 'version_max': 1})
        for i, s in enumerate(idle):
            s.connect(host.socket)
            s.settimeout(20)
            if i % 2:
                s.sendall(hello)
        for s in idle[1::2]:
            check(s.recv(4096), 'a WELCOME')
        wait_for(lambda: host.status()['clients'] >= IDLE, what='all are connected')
        grown = host.resident() - before
        print(f'# {IDLE} idle connections: {grown} KiB, {grown * 1024 // IDLE} bytes each')
        check(grown < 16 * MIB, 'memory')
        equal(last_of(host.chat('x', '-m', 'openai/fake'))['type'], 'end', 'another is served')
        for s in idle[0:20:2]:
            # Those that never said HELLO are told and closed.
            check(b'HELLO' in s.recv(4096), 'told')
        for s in idle:
            s.close()


def test_half_frames_end_with_their_sender():
    whole = wire.frame(wire.SUBMIT, 1, {'model': 'openai/fake', 'body': BODY})
    with busy_host() as (host, _):
        for cut in range(1, len(whole)):
            client = wire.Client(host.socket)
            client.socket.sendall(whole[:cut])
            client.close()
        wait_for(lambda: host.status()['clients'] <= 2, what='all are gone')


def test_a_slow_loris_is_let_go():
    whole = wire.frame(wire.SUBMIT, 1, {'model': 'openai/fake', 'body': BODY})
    with busy_host() as (host, _):
        clients = [wire.Client(host.socket, timeout=30) for _ in range(100)]
        slow_hello = wire.Client(host.socket, hello=False, timeout=30)
        slow_hello.socket.sendall(b'\x10')
        for client in clients:
            client.socket.sendall(whole[:20])
        for client in [*clients, slow_hello]:
            kind, request_id, body = client.read()
            equal((kind, request_id, body['status']), (wire.ERROR, 0, PROTOCOL), 'told')
            client.close()


def test_descriptors_from_clients_go_nowhere():
    with busy_host() as (host, _):
        wait_for(lambda: host.status()['clients'] == 2, what='only the healthy one')
        before = len(os.listdir(f'/proc/{host.daemon.pid}/fd'))
        client = wire.Client(host.socket)
        with open('/dev/null', 'rb') as file:
            fds = array.array('i', [file.fileno()] * 200)
            for i in range(1, 51):
                client.socket.sendmsg([wire.frame(wire.STATUS, i)],
                                      [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                equal(client.read()[0], wire.STATUS_REPLY, 'still answered')
        after = len(os.listdir(f'/proc/{host.daemon.pid}/fd'))
        check(after <= before + 8, f'descriptors: {before} before, {after} after 10,000 were sent')
        client.close()


def test_one_user_cannot_take_all_connections():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())], connections_per_user=3)
        host.start()
        clients = [wire.Client(host.socket) for _ in range(3)]
        for _ in range(5):
            refused = wire.Client(host.socket, hello=False)
            equal(refused.read()[2]['status'], BUSY, 'the fourth')
            refused.close()
        out = host.tool('status')
        check(out.returncode == 1 and 'try again later' in out.stderr, out.stderr)
        clients.pop().close()
        wait_for(lambda: host.tool('status').returncode == 0, what='one is free again')
        equal(host.dump()['counters']['connections_refused'] >= 6, True, 'counted')


# ---- a client that does not read ----

def test_a_client_that_never_reads_costs_little_and_pauses_its_provider():
    size = 16 << 20
    with busy_host() as (host, fake):
        before = host.resident()
        client = wire.Client(host.socket)
        client.submit(1, f'openai/fake?big={size}&chunk_bytes=4096', BODY)
        counters = lambda: host.dump()['counters']['upstream_bytes_in']  # noqa: E731
        seen = [0, -1]

        def stands_still():
            seen.append(counters())
            # The healthy client's answers are small beside a chunk of this one's.
            return seen[-1] - seen[-2] < 20_000 and seen[-1] > 100_000

        wait_for(stands_still, 30, 'the daemon stops reading')
        check(counters() < size / 4, 'long before the end')
        check(host.resident() < before + 8 * MIB, f'{before} to {host.resident()} KiB')
        equal([e for e in fake.ends() if e['bytes'] > size], [], 'the provider waits')
        frames = client.read_to_end(1)
        equal((frames[-1][0], frames[-1][1].get('message')), (wire.END, None), 'it is whole after all')
        equal(sum(len(b) for k, b in frames if k == wire.TEXT), size, 'every byte of it')
        client.close()


def test_a_client_that_asks_and_never_listens():
    """STATUS again and again: the daemon stops reading before the answers pile up."""
    with busy_host() as (host, _):
        before = host.resident()
        client = wire.Client(host.socket, timeout=2)
        asked = 0
        with contextlib.suppress(socket.timeout):
            while asked < 1_000_000:
                client.socket.sendall(wire.frame(wire.STATUS, 1) * 100)
                asked += 100
        check(asked < 1_000_000, 'the daemon stopped reading')
        check(host.resident() < before + 8 * MIB, f'{before} to {host.resident()} KiB')
        client.close()


if __name__ == '__main__':
    main()
