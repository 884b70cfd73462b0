#!/usr/bin/env python3
"""An application with an HTTP client of its own (examples/own_http.c) beside a real daemon."""
import json
import os
import subprocess

from clients import limit
from harness import BUILD, KEY, Host, clean_environment
from tap import Skip, check, equal, main, wait_for

PROGRAM = os.path.join(BUILD, 'examples', 'own_http')
MESSAGES = [{'role': 'user', 'content': 'hello'}]


def example():
    if not os.path.exists(PROGRAM):
        raise Skip('built without libcurl: there is no example')
    return Host()


def environment(host):
    return clean_environment(LLMKIT_SOCKET=host.socket, OPENAI_API_KEY=KEY)


def run(host, name, *pairs):
    body = json.dumps({'model': 'm', 'max_tokens': 64, 'messages': MESSAGES})
    return subprocess.run([PROGRAM, name, body, *pairs], capture_output=True, text=True, timeout=60,
                          env=environment(host), check=False)


def pair(name, fake):
    return f'{name}={fake.url}/v1/chat/completions'


def configure(host, one, two, **more):
    """Two providers of one model, tried in order, which count tokens."""
    host.configure(
        providers=[host.provider('openai', one, name='one'), host.provider('openai', two, name='two')],
        models=[{'name': 'm', 'provider': 'one', 'price': {'input': 1, 'output': 2}}],
        routes=[{'name': 'both', 'strategy': 'order', 'targets': ['m', 'two/m']}],
        **more)


def limits(host):
    return {(row['scope'], row['name'], row['resource']): row for row in host.dump()['limits']}


def test_a_call_counts_like_any_other():
    with example() as host:
        one, two = host.fake(), host.fake()
        configure(host, one, two, limits=[{'provider': 'one', 'requests': '100/day', 'tokens': '100k/day',
                                           'concurrency': 4}])
        host.start()
        out = run(host, 'both', pair('one', one), pair('two', two))
        equal(out.returncode, 0, out.stderr + out.stdout)
        usage = json.loads(out.stdout.split(' ', 1)[1])['usage']
        equal((len(one.arrivals()), len(two.arrivals())), (1, 0), 'who was called')
        rows = limits(host)
        equal(rows['provider', 'one', 'requests']['admitted'], 1)
        tokens = rows['provider', 'one', 'tokens']
        equal((tokens['burst'] - tokens['available'], tokens['held']), (usage['total_tokens'], 0), 'settled by what was used')
        equal(rows['provider', 'one', 'concurrency']['held'], 0)


def test_the_prompt_has_its_money_held():
    with example() as host:
        one = host.fake(script='*: first_ms=600000')
        host.configure(providers=[host.provider('openai', one, name='one')],
                       models=[{'name': 'm', 'provider': 'one', 'price': {'input': 100, 'output': 0}}],
                       limits=[{'model': 'm', 'money': '50 USD/day'}])
        host.start()
        body = json.dumps({'model': 'm', 'messages': [{'role': 'user', 'content': 'long ' * 7000}]})
        process = subprocess.Popen([PROGRAM, 'm', body, pair('one', one)], stdout=subprocess.DEVNULL,
                                   env=environment(host))
        host.workers.append(process)
        wait_for(one.arrivals, what='the request')
        # 100 USD per million tokens; bytes / 3.5.
        price = -(-len(body) * 2 // 7) * 100000
        held = limit(host, 'model m money')['held']
        check(price <= held <= price * 1.01, (price, held))
        process.kill()
        wait_for(lambda: limit(host, 'model m money')['held'] == 0, what='nobody holds it')
        equal(limit(host, 'model m money')['owed'], held, 'the dead may have spent it')


def test_what_was_used_is_paid():
    with example() as host:
        one = host.fake()
        host.configure(providers=[host.provider('openai', one, name='one')],
                       models=[{'name': 'm', 'provider': 'one', 'price': {'input': 100, 'output': 200}}],
                       limits=[{'model': 'm', 'money': '50 USD/day'}])
        host.start()
        out = run(host, 'm', pair('one', one))
        equal(out.returncode, 0, out.stderr + out.stdout)
        usage = json.loads(out.stdout.split(' ', 1)[1])['usage']
        row = limit(host, 'model m money')
        price = usage['prompt_tokens'] * 100000 + usage['completion_tokens'] * 200000
        equal((row['held'], row['owed']), (0, price))


def test_the_next_is_tried_and_the_first_is_paused():
    with example() as host:
        one = host.fake(script='*: status=429; retry_after=300')
        two = host.fake()
        configure(host, one, two, limits=[{'provider': 'one', 'requests': '100/day'}])
        host.start()
        out = run(host, 'both', pair('one', one), pair('two', two))
        equal(out.returncode, 0, out.stderr + out.stdout)
        equal((len(one.arrivals()), len(two.arrivals())), (1, 1), 'who was called')
        # Another process knows it, though the first is to be asked first.
        out = run(host, 'both', pair('one', one), pair('two', two))
        equal(out.returncode, 0, out.stderr + out.stdout)
        equal((len(one.arrivals()), len(two.arrivals())), (1, 2), 'who was called')
        out = run(host, 'one/m', pair('one', one), pair('two', two))
        equal(out.returncode, 1)
        check('retry after' in out.stderr, out.stderr)


def test_a_failing_provider_is_not_asked_for_long():
    with example() as host:
        one, two = host.fake(script='*: status=500'), host.fake()
        configure(host, one, two)
        host.start()
        for _ in range(30):
            out = run(host, 'both', pair('one', one), pair('two', two))
            equal(out.returncode, 0, out.stderr + out.stdout)
        asked = len(one.arrivals())
        check(0 < asked < 30, asked)
        equal(len(two.arrivals()), 30)


def test_without_a_daemon_it_says_so():
    with example() as host:
        out = run(host, 'both', 'one=http://127.0.0.1:9/')
        equal(out.returncode, 1)
        check('nothing listens on the socket' in out.stderr, out.stderr)


if __name__ == '__main__':
    main()
