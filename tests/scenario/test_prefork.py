#!/usr/bin/env python3
"""A prefork server: one handle opened before the fork, 16 children that all go on with it."""
import json
import os
import signal
import subprocess

from harness import BUILD, Host, clean_environment, text_of
from tap import check, equal, main, wait_for

CHILDREN = 16
MODEL = 'openai/fake?chunks=30&delay_ms=3'
BURST = 37


def run_prefork(host):
    out = subprocess.run(
        [os.path.join(BUILD, 'tests', 'scenario', 'scenario-prefork'), host.socket, MODEL, str(CHILDREN)],
        capture_output=True, text=True, timeout=120, check=False)
    equal(out.returncode, 0, out.stderr + out.stdout)
    return [json.loads(line) for line in out.stdout.splitlines()]


def test_all_children_work_and_none_shares_a_socket():
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)],
                       limits=[{'user': 'forks', 'requests': '1/day', 'burst': BURST}])
        host.start()
        expect = text_of(host.chat('hello', '-m', MODEL))
        lines = run_prefork(host)
        children = [line for line in lines if line['who'] == 'child']
        parent = [line for line in lines if line['who'] == 'parent'][0]
        status = [line for line in lines if line['who'] == 'status'][0]
        equal(len(children), CHILDREN, 'children')
        for child in children:
            equal(child['error'], 'LLMKIT_OK', 'its request')
            equal(child['text'], expect, 'its answer')
            equal(child['forked'], 'LLMKIT_E_FORKED', "the parent's stream, seen from a child")
        equal((parent['error'], parent['text']), ('LLMKIT_OK', expect), "the parent's stream")

        sockets = [child['own'] for child in children] + [parent['own']]
        check(all(sockets), 'each has a socket')
        equal(len(set(sockets)), CHILDREN + 1, 'and none that another has')
        for child in children:
            equal(child['inherited'], parent['own'], 'what a child was born with')

        equal(status['attached'], CHILDREN, 'attached at once')
        equal(status['status']['clients'], CHILDREN + 1, 'as the daemon counts them')
        equal(sum(child['admitted'] for child in children), BURST, 'one budget, all of it')
        equal(len(fake.arrivals()), CHILDREN + 2, 'requests')
        wait_for(lambda: not host.participants(), what='all rows are given back')


def test_children_outlive_a_daemon_and_its_parent_does_too():
    """The same again, against the next daemon: nothing of the first is left over."""
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())],
                       limits=[{'user': 'forks', 'requests': '1/day', 'burst': BURST}])
        host.start()
        run_prefork(host)
        host.kill()
        host.start()
        lines = run_prefork(host)
        equal(sum(line.get('admitted', 0) for line in lines), 0, 'the budget stayed used up')


def children_of(pid):
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as file:
        return [int(child) for child in file.read().split()]


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as file:
            return file.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_of_the_example_end_with_their_parent():
    with Host() as host:
        host.configure(providers=[], limits=[{'user': 'forks', 'requests': '1/day', 'burst': BURST}])
        host.start()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            parent = subprocess.Popen(
                [os.path.join(BUILD, 'examples', 'workers'), '--user', 'forks', '--workers', '3', '--seconds', '60'],
                env=clean_environment(LLMKIT_SOCKET=host.socket))
            host.workers.append(parent)
            wait_for(lambda: len(children_of(parent.pid)) == 3, what='all workers are there')
            workers = children_of(parent.pid)
            # Each is attached: it has come as far as its work.
            wait_for(lambda: len(host.participants()) == 4, what='all workers work')
            parent.send_signal(number)
            equal(parent.wait(30), -number, 'the parent')
            wait_for(lambda: not any(map(is_running, workers)), what=f'no worker is left after {number}')


if __name__ == '__main__':
    main()
