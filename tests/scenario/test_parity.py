#!/usr/bin/env python3
"""One decision, whoever makes it: what the daemon does with a request, what `llmkit route` says and
what a process that takes part through the library is told."""
import time

from clients import LIMITED, Caller, Member, acted, ask, breakers, choices, limit, limits
from harness import Host
from tap import check, equal, main

SICK = {'failures': 3, 'backoff': '100ms', 'backoff_max': '100ms', 'probes': 1, 'successes': 1, 'deviation': 0}


def told(host, name, *arguments):
    """[(target, reason)] in order, as the tool says; a member is told the same."""
    tool = [(f'{c["provider"]}/{c["model"]}', c['reason'])
            for c in choices(host, name, '--input', '20', *arguments)['targets']]
    if not arguments:
        member = Member(host)
        member.good('targets', name=name)
        equal([(c['name'], c['reason']) for c in member.do('route', input=20)['choices']], tool,
              'the library and the tool')
        member.leave()
    return tool


def test_a_routes_price_cap():
    with Host() as host:
        dear, cheap = host.fake(), host.fake()
        host.configure(
            providers=[host.provider('openai', dear, name='d'), host.provider('openai', cheap, name='c')],
            models=[{'name': 'dear', 'provider': 'd', 'price': {'input': 1000, 'output': 1000}},
                    {'name': 'cheap', 'provider': 'c', 'price': {'input': 0.01, 'output': 0.01}}],
            routes=[{'name': 'capped', 'price_cap': '0.0001 USD', 'targets': ['dear', 'cheap']}])
        host.start()
        equal(ask(host, route='capped')['status'], 0)
        equal((len(dear.arrivals()), len(cheap.arrivals())), (0, 1), 'where the daemon went')
        equal(told(host, 'capped'), [('c/cheap', 'chosen'), ('d/dear', 'out: price')])
        equal(told(host, 'capped', '--price-cap', '1000')[0], ('d/dear', 'chosen'), 'unless told otherwise')


def test_a_routes_patience():
    with Host() as host:
        one, two = host.fake(), host.fake()
        host.configure(
            providers=[host.provider('openai', one, name='one'), host.provider('openai', two, name='two')],
            models=[{'name': 'a', 'provider': 'one'}, {'name': 'b', 'provider': 'two'}],
            limits=[{'provider': 'one', 'requests': '1/h', 'burst': 1}],
            routes=[{'name': 'calm', 'patience': '1d', 'targets': ['a', 'b']},
                    {'name': 'brisk', 'patience': '2s', 'targets': ['a', 'b']},
                    {'name': 'rushed', 'targets': ['a', 'b']}])
        host.start()
        equal(ask(host, route='rushed')['status'], 0)
        equal((len(one.arrivals()), len(two.arrivals())), (1, 0), 'the limit is used up')
        for name in ('rushed', 'brisk'):
            equal(told(host, name), [('two/b', 'chosen'), ('one/a', 'out: budget')])
            equal(ask(host, route=name)['status'], 0)
        equal(len(two.arrivals()), 2, 'where the daemon went')
        equal(told(host, 'calm'), [('one/a', 'chosen'), ('two/b', 'fallback')])


def test_a_plain_name_is_the_configured_model():
    with Host() as host:
        a, b = host.fake(), host.fake()
        host.configure(
            providers=[host.provider('openai', a, name='a'), host.provider('openai', b, name='b')],
            models=[{'name': 'gpt', 'provider': 'a', 'price': {'input': 9, 'output': 9}}],
            routes=[{'name': 'r', 'targets': ['b/gpt', 'b/only']}])
        host.start()
        equal(told(host, 'gpt'), [('a/gpt', 'chosen')], 'not what a route names')
        equal(ask(host, 'b/gpt')['status'], 0)
        equal(ask(host, 'b/new')['status'], 0)
        equal(told(host, 'gpt'), [('a/gpt', 'chosen')], 'nor what somebody asked for')
        equal(ask(host, 'gpt')['status'], 0)
        equal(len(a.arrivals()), 1, 'the daemon goes there')
        equal(told(host, 'b/gpt'), [('b/gpt', 'chosen')])
        for name in ('only', 'new'):
            check(ask(host, name)['status'] != 0, 'the daemon knows of none')
            equal(Member(host).do('targets', name=name)['code'], 'LLMKIT_E_UNKNOWN_MODEL')
    with Host() as host:
        a = host.fake()
        host.configure(providers=[host.provider('openai', a, name='a')])
        host.start()
        equal(ask(host, 'any')['status'], 0, 'of one provider any name will do')
        equal(told(host, 'any'), [('a/any', 'chosen')])


def test_limits_of_a_key_are_everybodys():
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake, name='p')],
                       models=[{'name': 'm', 'provider': 'p'}],
                       limits=[{'key': 'key', 'requests': '2/day', 'burst': 2}])
        host.start()
        member = Member(host)
        member.good('scope', provider='p', model='m')
        member.good('lease', slot=0, requests=1)
        equal(limit(host, 'key key requests')['available'], 1, 'a member takes of it')
        equal(told(host, 'm'), [('p/m', 'chosen')])
        equal([ask(host, 'm')['status'] for _ in range(2)], [0, LIMITED], 'and so does the daemon')
        equal(told(host, 'm'), [('p/m', 'out: budget')])
        equal(member.do('lease', slot=1, requests=1)['limit'], 'key key requests')
        member.good('scope', provider='p', model='m', key='own')
        member.good('lease', slot=1, requests=1)


def test_what_is_held_for_an_answer():
    with Host() as host:
        fake = host.fake(script='*: first_ms=60000')
        host.configure(providers=[host.provider('openai', fake, name='p'),
                                  host.provider('openai', fake, name='q', tokens='reserve')],
                       models=[{'name': 'small', 'provider': 'p', 'max_tokens': 300},
                               {'name': 'any', 'provider': 'p'},
                               {'name': 'charged', 'provider': 'q', 'max_tokens': 300}],
                       templates={'per_model': {'output_tokens': '1M/day', 'burst': {'output_tokens': '1M'}}})
        host.start()
        member, caller = Member(host), Caller(host)
        for name, tokens in (('small', 300), ('any', 1024), ('charged', 64000)):
            member.good('targets', name=name)
            equal(member.do('route', max=64000)['choices'][0]['output'], tokens, 'the library says')
            equal(choices(host, name)['targets'][0]['output_tokens'], min(tokens, 1024 if name == 'any' else 300))
            caller.send(name, max_tokens=64000)
            until = time.monotonic() + 60
            while not taken(host, name) and time.monotonic() < until:
                time.sleep(0.01)
            equal(taken(host, name), tokens, 'the daemon holds')
        caller.close()


def taken(host, model):
    """Output tokens held, or, by a provider that charges at once, owed."""
    rows = [row for label, row in limits(host).items() if label == f'model {model} output_tokens']
    return sum(row['burst'] - row['available'] for row in rows)


def ramp(strategy):
    """30 calls at once, just after the breaker of the first closed: few go there."""
    with Host() as host:
        sick, well = host.fake(script='*: status=500'), host.fake()
        host.configure(
            providers=[host.provider('openai', sick, name='sick', breaker='off'),
                       host.provider('openai', well, name='well', breaker='off')],
            models=[{'name': 'm', 'provider': 'sick', 'breaker': SICK}, {'name': 'n', 'provider': 'well'}],
            routes=[{'name': 'both', 'strategy': strategy, 'targets': ['m', 'n']}])
        host.start()
        caller = Caller(host)
        while breakers(host)['sick/m']['state'] != 'open':
            caller.ask('m')
        sick.set_script('')
        while breakers(host)['sick/m']['state'] != 'closed':
            caller.ask('m')
        closed = time.monotonic()
        sick.set_script('*: first_ms=60000')
        before = len(sick.arrivals()), len(well.arrivals())
        for _ in range(30):
            caller.send('', route='both')
        while len(sick.arrivals()) + len(well.arrivals()) < sum(before) + 30:
            check(time.monotonic() < closed + 60, 'all arrive')
            time.sleep(0.01)
        now = len(sick.arrivals()) - before[0]
        # One after the probe's success, and twice as many each second.
        check(now <= 2 ** (1 + int(time.monotonic() - closed) + 1), f'{strategy}: {now} at the one that has just closed')
        check(now > 0 or strategy == 'weighted', 'but it is used')
        caller.close()
        acted(host, 'breakers', 'close', 'well/n')


def test_every_strategy_ramps_up():
    for strategy in ('order', 'round_robin', 'weighted'):
        ramp(strategy)


def test_health_is_told():
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake, name='p')], models=[{'name': 'm', 'provider': 'p'}])
        host.start()
        equal([ask(host, 'm', more={'stream': True})['status'] for _ in range(3)], [0] * 3)
        fake.set_script('*: status=500')
        ask(host, 'm')
        row = breakers(host)['p/m']
        equal((row['window_ok'], row['window_bad'], row['errors']), (3, 1, 1))
        check(row['baseline_us'] > 0, 'of three answers')
        equal(row['changed_ns'], 0, 'it never changed')
        acted(host, 'breakers', 'open', 'p/m')
        check(breakers(host)['p/m']['changed_ns'] > 0, 'it did now')


if __name__ == '__main__':
    main()
