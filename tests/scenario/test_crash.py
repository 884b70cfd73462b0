#!/usr/bin/env python3
"""The daemon killed, corrupted, started fifty times at once, drained: what must hold then."""
import json
import os
import random
import signal
import socket
import struct
import subprocess
import time

import wire
from harness import BUILD, Host, clean_environment, last_of, rest_of, text_of
from tap import check, equal, main, wait_for

KILLS = 1000 if os.environ.get('LLMKIT_LONG') else 100
WORKERS = 4
STREAM = 'openai/fake?chunks=40&delay_ms=5'
BOOT_ID_OFFSET = 56


def boottime_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def rows(host, state=None):
    return [p for p in host.participants() if state in (None, p['state'])]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# ---- kill -9 ----

BUDGETS = {  # name of the limit's key and value -> (per second, burst)
    ('provider', 'openai'): (1000, 100),
    ('user', 'streamer'): (150, 10),
    ('user', 'acquirer'): (1000, 50),
}


def limits_of(budgets):
    return [{key: name, 'requests': f'{rate}/s', 'burst': burst}
            for (key, name), (rate, burst) in budgets.items()]


def kill_and_restart(host, generation, look):
    """One round; when the daemon was killed."""
    kills_ns = boottime_ns()
    host.kill()
    if look:
        dead = host.dump()
        check(not dead['daemon_alive'] and not dead['closed'], 'dump while it is dead')
        check('DEAD' in host.tool('dump').stdout, 'the text says so too')
    host.start()
    client = wire.Client(host.socket)
    equal(client.welcome['generation'], generation, 'generation')
    client.close()
    return kills_ns


def check_losses(kills_ns, lines):
    """Every failed stream was told so, retryable; how long after the kill."""
    lost = [line for line in lines if line['event'] == 'error']
    delays = []
    for line in lost:
        equal(line['name'], 'LLMKIT_E_DAEMON_LOST', 'how a stream fails')
        check(line['retryable'], 'a lost daemon is retryable')
        delays.append(line['ns'] - max(k for k in kills_ns if k <= line['ns']))
    check(len(lost) >= len(kills_ns), f'streams were cut: {len(lost)}')
    print(f'# {len(lost)} streams lost in {len(kills_ns)} kills; DAEMON_LOST after the kill: median '
          f'{percentile(delays, 0.5) / 1e6:.2f} ms, p99 {percentile(delays, 0.99) / 1e6:.2f} ms, max '
          f'{max(delays) / 1e6:.2f} ms')
    check(percentile(delays, 0.5) < 1e9, 'told within a second')


def check_budgets(elapsed_s, arrivals, acquired, text):
    for (key, name), used in ((('user', 'streamer'), arrivals), (('user', 'acquirer'), acquired),
                              (('provider', 'openai'), arrivals + acquired)):
        rate, burst = BUDGETS[key, name]
        bound = burst + rate * elapsed_s
        print(f'# {key} {name}: {used} admitted, bound {bound:.0f}{text}')
        check(used <= bound, f'{key} {name}: {used} above {bound}')
        check(used > 0, f'{key} {name} was used')


def test_kill_under_load():
    chance = random.Random(1)
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)], limits=limits_of(BUDGETS),
                       log={'level': 'info'})
        began_ns = boottime_ns()
        host.start()
        expect = text_of(host.chat('hello', '-m', STREAM))
        workers = [host.load(STREAM, expect, '--streams', '6', '--user', 'streamer',
                             '--acquire-provider', 'openai', '--acquire-user', 'acquirer')
                   for _ in range(WORKERS)]
        kills_ns = []
        for i in range(KILLS):
            time.sleep(chance.uniform(0.05, 0.3))
            kills_ns.append(kill_and_restart(host, i + 2, i % 20 == 0))
        wait_for(lambda: len(rows(host, 'attached')) == WORKERS, what='all attached again')
        equal(len(rows(host)), WORKERS, 'rows of participants')
        lines = [line for w in workers for line in host.finish_load(w)]
        elapsed_s = (boottime_ns() - began_ns) / 1e9
        totals = [line for line in lines if line['event'] == 'total']
        print(f'# {sum(t["ended"] for t in totals)} streams ended well, '
              f'{sum(t["limited"] for t in totals)} were refused by a limit')
        check(all(t['ended'] for t in totals), 'every worker got answers')
        check_losses(kills_ns, lines)
        check_budgets(elapsed_s, len(fake.arrivals()), sum(t['acquired'] for t in totals), '')
        wait_for(lambda: not rows(host), what='no participant is left')
        equal(host.log_text().count('adopted the control region: budgets kept'), KILLS, 'adoptions')
        equal(host.status()['requests_active'], 0, 'requests')


def test_budgets_survive_a_kill_exactly():
    """No rate to hide behind: what was taken stays taken."""
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)],
                       limits=[{'provider': 'openai', 'requests': '5/day', 'burst': 5}])
        for _ in range(5):
            host.start()
            equal(last_of(host.chat('x', '-m', 'openai/fake'))['type'], 'end', 'admitted')
            host.kill()
        host.start()
        equal(last_of(host.chat('x', '-m', 'openai/fake'))['code'], 'LLMKIT_E_LIMITED', 'sixth')
        equal(len(fake.arrivals()), 5, 'arrivals')


def test_what_was_sent_before_the_kill_stays_readable():
    # Few enough pieces for the socket to hold them all: the kernel counts each as a page or so.
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        host.start()
        expect = host.chat('x', '-m', 'openai/fake?chunks=100&delay_ms=1')
        chat = start_chat(host, 'chunks=100&delay_ms=1')
        chat.send_signal(signal.SIGSTOP)
        wait_for(lambda: host.dump()['counters']['requests_succeeded'] == 2, what='all was sent')
        host.kill()
        chat.send_signal(signal.SIGCONT)
        out = rest_of(chat)
        events = [json.loads(line) for line in out.splitlines()]
        equal((events[-1]['type'], len(events)), ('end', len(expect) - 1), f'whole: {events[-1]}')
        equal(text_of(events), text_of(expect), 'text')


# ---- what an earlier daemon left ----

def damage(host, how):
    with open(os.path.realpath(host.region), 'r+b') as file:
        how(file)


def write_at(offset, data):
    def how(file):
        file.seek(offset)
        file.write(data)
    return how


DAMAGES = (
    ('magic', write_at(0, b'garbage!')),
    ('version', write_at(8, struct.pack('<Q', 99))),
    ('layout', write_at(40, struct.pack('<Q', 1))),
    ('section beyond the file', write_at(128 + 8, struct.pack('<Q', 1 << 40))),
    ('other boot', write_at(BOOT_ID_OFFSET, bytes(16))),
    ('truncated', lambda file: file.truncate(5000)),
    ('empty', lambda file: file.truncate(0)),
)


def test_an_unusable_region_is_moved_aside_and_budgets_start_empty():
    for what, how in DAMAGES:
        with Host() as host:
            fake = host.fake()
            host.configure(providers=[host.provider('openai', fake)],
                           limits=[{'provider': 'openai', 'requests': '1/h', 'burst': 5}])
            host.start()
            host.kill(signal.SIGTERM)
            damage(host, how)
            with open(os.path.realpath(host.region), 'rb') as file:
                before = file.read()
            host.start()
            check('budgets start empty' in host.log_text(), what)
            with open(os.path.realpath(host.region) + '.unusable', 'rb') as file:
                equal(file.read() == before, True, f'{what}: the old bytes are kept')
            error = last_of(host.chat('x', '-m', 'openai/fake'))
            equal(error.get('code'), 'LLMKIT_E_LIMITED', what)
            equal(len(fake.arrivals()), 0, what)


def test_insane_buckets_are_clamped_and_the_region_kept():
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)],
                       limits=[{'provider': 'openai', 'requests': '1/h', 'burst': 2}])
        host.start()
        section = [s for s in host.dump()['header']['sections'] if s['type'] == 1][0]
        host.kill()
        for row in range(section['rows']):
            damage(host, write_at(section['offset'] + row * section['row_size'], b'\xff' * 8))
        host.start()
        error = last_of(host.chat('x', '-m', 'openai/fake'))
        equal(error['code'], 'LLMKIT_E_LIMITED', 'no budget from garbage')
        check(error['retry_after_ns'] <= 2 * 3600 * 10**9, f'and none lost for ever: {error}')
        check('adopted' in host.log_text(), 'adopted')


def test_an_orderly_end_is_seen_in_the_region():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        host.start()
        check(host.dump()['daemon_alive'], 'alive')
        equal(host.kill(signal.SIGTERM), 0, 'exit code')
        dump = host.dump()
        check(dump['closed'] and not dump['daemon_alive'], 'closed')
        check('stopped in order' in host.tool('dump').stdout, 'text')
        check(not os.path.exists(host.socket), 'no socket is left')


# ---- two daemons, fifty daemons ----

def test_of_fifty_daemons_one_wins_and_the_others_name_it():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        daemons = [host.spawn('--config', host.config) for _ in range(50)]
        host.workers += daemons
        wait_for(lambda: sum(d.poll() is None for d in daemons) == 1, 60, 'one is left')
        host.daemon = [d for d in daemons if d.poll() is None][0]
        host.wait_ready()
        equal({d.returncode for d in daemons}, {None, 3}, 'exit codes')
        equal(host.log_text().count(f'is held by process {host.daemon.pid}'), 49, 'named')
        equal(host.status()['pid'], host.daemon.pid, 'who answers')
        equal(host.dump()['header']['generation'], 1, 'nobody else touched the region')


# ---- the orderly end ----

def start_chat(host, script):
    chat = subprocess.Popen(host.tool_command('chat', '--json', '-m', 'openai/fake?' + script, 'x'),
                            stdout=subprocess.PIPE, text=True,
                            env=clean_environment(LLMKIT_SOCKET=host.socket))
    host.workers.append(chat)
    check('"start"' in chat.stdout.readline(), 'the answer begins')
    return chat


def test_sigterm_drains():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        host.start()
        chat = start_chat(host, 'chunks=60&delay_ms=25')
        client = wire.Client(host.socket)
        host.daemon.terminate()
        wait_for(lambda: 'draining requests=1' in host.log_text(), what='the drain begins')
        out = host.tool('chat', '-m', 'openai/fake', 'x')
        equal(out.returncode, 1, 'a new client')
        check('nothing listens' in out.stderr, out.stderr)
        client.submit(1, 'openai/fake', '{"messages":[{"role":"user","content":"x"}]}')
        equal(client.read_to_end(1)[-1][1]['status'], 9, 'SHUTTING_DOWN for an attached one')
        out = rest_of(chat)
        check('"end"' in out.splitlines()[-1], 'the open stream finished')
        equal(host.daemon.wait(30), 0, 'exit code')
        check(host.dump()['closed'], 'closed')


def test_a_second_sigterm_ends_at_once():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        host.start()
        chat = start_chat(host, 'chunks=100000&delay_ms=50')
        host.daemon.terminate()
        wait_for(lambda: 'draining' in host.log_text(), what='the drain begins')
        check(host.daemon.poll() is None, 'it waits for the stream')
        host.daemon.terminate()
        equal(host.daemon.wait(30), 0, 'exit code')
        out = rest_of(chat)
        check('LLMKIT_E_SHUTTING_DOWN' in out.splitlines()[-1], out.splitlines()[-1])


def test_the_drain_has_an_end():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())], drain_timeout='300ms')
        host.start()
        chat = start_chat(host, 'chunks=100000&delay_ms=50')
        host.daemon.terminate()
        equal(host.daemon.wait(30), 0, 'exit code')
        out = rest_of(chat)
        check('LLMKIT_E_SHUTTING_DOWN' in out.splitlines()[-1], out.splitlines()[-1])


# ---- the service manager ----

def test_the_service_manager_is_told():
    with Host() as host:
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(os.path.join(host.folder, 'notify'))
        manager.settimeout(20)
        host.environment['NOTIFY_SOCKET'] = os.path.join(host.folder, 'notify')
        host.environment['WATCHDOG_USEC'] = '200000'
        host.configure(providers=[host.provider('openai', host.fake())])
        host.start()

        def next_message():
            while (text := manager.recv(4096).decode()) == 'WATCHDOG=1':
                pass
            return text

        equal(next_message(), 'READY=1')
        while manager.recv(4096) != b'WATCHDOG=1':
            pass
        host.daemon.send_signal(signal.SIGHUP)
        first, second = next_message().split('\n')
        equal(first, 'RELOADING=1')
        check(second.startswith('MONOTONIC_USEC='), second)
        equal(next_message(), 'READY=1')
        host.daemon.terminate()
        equal(next_message(), 'STOPPING=1')
        equal(host.daemon.wait(30), 0, 'exit code')
        manager.close()


def test_socket_activation():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(host.socket)
        listening.listen(16)
        command = (f'exec 3<&{listening.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$; '
                   f'exec {BUILD}/daemon/llmkitd --config {host.config}')
        with open(host.log, 'ab') as log:
            host.daemon = subprocess.Popen(['sh', '-c', command], stdout=log, stderr=log,
                                           pass_fds=[listening.fileno()], env=clean_environment())
        # No need to wait for it: the socket is there, which is what activation is for.
        equal(last_of(host.chat('x', '-m', 'openai/fake'))['type'], 'end', 'works')
        host.daemon.terminate()
        equal(host.daemon.wait(30), 0, 'exit code')
        check(os.path.exists(host.socket), "the manager's socket is not ours to remove")
        listening.close()


if __name__ == '__main__':
    main()
