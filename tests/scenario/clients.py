"""What tests of limits, breakers and routes share: who asks the daemon, who takes part through the
library, and what the tool says of it all."""
import json
import os
import subprocess
import threading
import time

import wire
from harness import BUILD, clean_environment
from tap import check, equal

LIMITED, NEVER_FITS, BUSY, CIRCUIT_OPEN, NO_TARGET, CONTEXT_LENGTH = 10, 11, 4, 16, 17, 26
PROVIDER_LIMITED, PROVIDER_ERROR = 20, 24
NS = 10**9


def boottime_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


# ---- clients ----

class Caller:
    """One connection; ask() sends a request and gives its last frame's body, 'status' 0 when good."""

    def __init__(self, host):
        self.client = wire.Client(host.socket)
        self.number = 0

    def send(self, model, text='x', max_tokens=10, more=None, **envelope):
        self.number += 1
        body = {'messages': [{'role': 'user', 'content': text}], 'max_tokens': max_tokens, **(more or {})}
        self.client.submit(self.number, model, json.dumps(body), **envelope)
        return self.number

    def finish(self, number):
        kind, body = self.client.read_to_end(number)[-1]
        return {'status': 0, **body} if kind == wire.END else body

    def ask(self, model='', **options):
        return self.finish(self.send(model, **options))

    def close(self):
        self.client.close()


def ask(host, model='', **options):
    caller = Caller(host)
    try:
        return caller.ask(model, **options)
    finally:
        caller.close()


class Member:
    """member.c: a participant that holds what it is told to."""

    def __init__(self, host):
        self.process = subprocess.Popen(
            [os.path.join(BUILD, 'tests', 'scenario', 'scenario-member'), host.socket],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=clean_environment())
        host.workers.append(self.process)
        equal(self.read()['code'], 'LLMKIT_OK', 'attached')

    def read(self):
        line = self.process.stdout.readline()
        check(line, 'the member ended')
        return json.loads(line)

    def do(self, verb, **words):
        self.process.stdin.write(' '.join([verb, *(f'{k}={v}' for k, v in words.items())]) + '\n')
        return self.read()

    def good(self, verb, **words):
        answer = self.do(verb, **words)
        equal(answer['code'], 'LLMKIT_OK', f'{verb} {words}: {answer}')
        return answer

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait(30)

    def leave(self):
        self.process.stdin.close()
        equal(self.process.wait(30), 0, 'it ends')


def each(values, function):
    """function(value) of all at once, in threads; raises what the first of them raised."""
    wrong = []

    def run(value):
        try:
            function(value)
        except BaseException as error:  # for the caller to see
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        check(not thread.is_alive(), 'a client hangs')
    if wrong:
        raise wrong[0]


# ---- what the tool says ----

def table(host, command, rows, key):
    out = host.tool(command, '--json')
    equal(out.returncode, 0, out.stderr)
    return {row[key]: row for row in json.loads(out.stdout)[rows]}


def limits(host):
    return table(host, 'limits', 'limits', 'label')


def limit(host, label):
    return limits(host)[label]


def breakers(host):
    return table(host, 'breakers', 'breakers', 'target')


def acted(host, *arguments):
    out = host.tool(*arguments)
    equal(out.returncode, 0, out.stdout + out.stderr)


def events(host, kind):
    """Those that the region still has, as `llmkit top` tells them."""
    out = host.tool('top', '--once', '--json', '--interval', '0.05')
    equal(out.returncode, 0, out.stderr)
    return [event for event in json.loads(out.stdout)['events'] if event['kind'] == kind]


def holds(host):
    return host.dump()['holds']


def all_settled(host):
    """Nothing is in flight anywhere."""
    return not holds(host) and not any(row['held'] for row in limits(host).values()) and \
        not any(row['pending'] for row in breakers(host).values())


def choices(host, *arguments):
    out = host.tool('route', *arguments, '--json', '--explain')
    return json.loads(out.stdout)
