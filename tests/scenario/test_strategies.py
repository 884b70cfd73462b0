#!/usr/bin/env python3
"""Where each strategy of a route sends requests, counted where they arrive, and that `llmkit route`
says the same. Bounds on shares are wide: what is measured here is the direction, not the machine."""
import math

from clients import CONTEXT_LENGTH, LIMITED, NO_TARGET, Caller, acted, ask, breakers, choices, each, limits
from harness import Host, last_of
from tap import check, equal, main

USD_PER_MTOK = {'input': 1, 'output': 3}


class Three:
    """Providers one, two and three with a model each, a, b and c, and over them a route r, or several."""

    def __init__(self, host, *routes, prices=(1, 1, 1), **sections):
        self.host = host
        self.fakes = [host.fake() for _ in range(3)]
        self.names = ['one/a', 'two/b', 'three/c']
        host.configure(
            # Without breakers: who is left alone is so by the strategy.
            providers=[host.provider('openai', fake, name=name.split('/')[0], breaker='off')
                       for fake, name in zip(self.fakes, self.names)],
            models=[{'name': name.split('/')[1], 'provider': name.split('/')[0],
                     'price': {key: times * usd for key, usd in USD_PER_MTOK.items()}}
                    for name, times in zip(self.names, prices)],
            routes=[{'name': 'r', 'targets': ['a', 'b', 'c'], **route} for route in routes], **sections)
        host.start()

    def meet(self, times=10):
        """So many answers of each, and it is known."""
        def meet_one(model):
            caller = Caller(self.host)
            for _ in range(times):
                caller.ask(model, more={'stream': True})
            caller.close()

        each('abc', meet_one)

    def arrived(self):
        return [len(fake.arrivals()) for fake in self.fakes]

    def send(self, times, route='r'):
        """Who got how many of so many requests to the route; all are answered."""
        before, caller = self.arrived(), Caller(self.host)
        for _ in range(times):
            equal(caller.ask(route=route, more={'stream': True})['status'], 0, 'answered')
        caller.close()
        return [after - had for after, had in zip(self.arrived(), before)]

    def explain(self, route='r'):
        """[(target, reason)] in order, of a call like those of send()."""
        return [(f'{c["provider"]}/{c["model"]}', c['reason'])
                for c in choices(self.host, route, '--input', '20', '--output', '10')['targets']]


# ---- those that learn nothing ----

def test_order_takes_the_first_that_may():
    with Host() as host:
        three = Three(host, {'strategy': 'order'}, limits=[{'provider': 'two', 'requests': '5/day', 'burst': 5}])
        equal(three.send(10), [10, 0, 0], 'the first')
        equal(three.explain(), [('one/a', 'chosen'), ('two/b', 'fallback'), ('three/c', 'fallback')])
        three.fakes[0].set_script('*: status=500')
        equal(three.send(4), [4, 4, 0], 'the second where the first fails')
        acted(host, 'breakers', 'open', 'one')
        equal(three.send(1), [0, 1, 0], 'and where its breaker is open')
        equal(three.explain(), [('three/c', 'chosen'), ('one/a', 'out: breaker'), ('two/b', 'out: budget')])
        equal(three.send(6), [0, 0, 6], 'the third when the second has spent its limit')
        acted(host, 'breakers', 'close', 'one')
        three.fakes[0].set_script('')
        equal(three.send(3), [3, 0, 0], 'the first again')


def test_round_robin_is_exactly_even():
    with Host() as host:
        three = Three(host, {'strategy': 'round_robin'}, prices=(1, 50, 9))
        three.fakes[1].set_script('*: ttft_ms=30')
        equal([three.send(1) for _ in range(6)], [[1, 0, 0], [0, 1, 0], [0, 0, 1]] * 2, 'in turn')
        for number in range(6):
            first = three.explain()[0]
            equal(first, (three.names[number % 3], 'chosen'), 'llmkit route says who is next')
            equal(three.send(1)[number % 3], 1, 'and takes no turn')
        equal(three.send(30), [10, 10, 10], 'whatever it costs and however long it takes')

        def work(_):
            caller = Caller(host)
            for _ in range(15):
                equal(caller.ask(route='r')['status'], 0)
            caller.close()

        before = three.arrived()
        each(range(4), work)
        equal([now - had for now, had in zip(three.arrived(), before)], [20, 20, 20], 'of many at once')
        acted(host, 'breakers', 'open', 'two/b')
        equal(three.send(20), [10, 0, 10], 'and among those that are left')
        equal(dict(three.explain())['two/b'], 'out: breaker')


def test_weighted_is_by_weight():
    weights = (1, 2, 5)
    with Host() as host:
        three = Three(host, {'strategy': 'weighted', 'targets': [
            {'target': name, 'weight': weight} for name, weight in zip('abc', weights)]}, prices=(1, 50, 9))
        times = 400
        got = three.send(times)
        print(f'# {got} of {times}, by weights {weights}')
        for count, weight in zip(got, weights):
            share = weight / sum(weights)
            sigma = math.sqrt(times * share * (1 - share))
            check(abs(count - times * share) < 5 * sigma, f'{got}: {count} is not {times * share:.0f}')
        first = three.explain()
        equal((first[0][1], {name for name, _ in first}), ('chosen', set(three.names)), first)
        acted(host, 'breakers', 'open', 'three/c')
        got = three.send(120)
        check(got[2] == 0 and abs(got[0] - 40) < 5 * math.sqrt(120 * 2 / 9), f'one to two: {got}')


# ---- those that do ----

def test_cost_is_that_of_the_requests_own_tokens():
    with Host() as host:
        one, two = host.fake(), host.fake()
        host.configure(
            providers=[host.provider('openai', one, name='one'), host.provider('openai', two, name='two')],
            models=[{'name': 'reads', 'provider': 'one', 'price': {'input': 1, 'output': 10}},
                    {'name': 'writes', 'provider': 'two', 'price': {'input': 10, 'output': 1}}],
            routes=[{'name': 'r', 'strategy': 'cost', 'targets': ['reads', 'writes']}])
        host.start()
        caller = Caller(host)
        # Nothing that costs twice as much is even tried: this is exact.
        for _ in range(8):
            equal(caller.ask(route='r', text='word ' * 1000, max_tokens=10)['status'], 0)
        equal([len(one.arrivals()), len(two.arrivals())], [8, 0], 'a long prompt, a short answer')
        for _ in range(8):
            equal(caller.ask(route='r', text='x', max_tokens=900)['status'], 0)
        equal([len(one.arrivals()), len(two.arrivals())], [8, 8], 'a short prompt, a long answer')
        caller.close()
        for tokens, first in ((('1400', '10'), 'reads'), (('10', '900'), 'writes')):
            rows = choices(host, 'r', '--input', tokens[0], '--output', tokens[1])['targets']
            equal(rows[0]['model'], first, rows)
            fresh, made = [int(n) for n in tokens]
            prices = {'reads': (1, 10), 'writes': (10, 1)}
            for row in rows:
                price = prices[row['model']]
                equal(row['cost_nanousd'], (fresh * price[0] + made * price[1]) * 1000, row)


def test_cost_goes_to_the_cheapest_that_answers():
    with Host() as host:
        three = Three(host, {'strategy': 'cost'}, prices=(16, 1, 4))
        equal(three.send(12), [0, 12, 0], 'the cheapest')
        equal(three.explain(), [('two/b', 'chosen'), ('three/c', 'cold'), ('one/a', 'cold')], 'llmkit route')
        three.fakes[1].set_script('*: status=500')
        # It comes last once it fails more than it answers.
        got = three.send(40)
        print(f'# while the cheapest fails: {got}')
        check(got[0] == 0 and got[2] == 40 and got[1] < 25, f'the next one, when the cheapest fails: {got}')


def test_latency_follows_a_change():
    with Host() as host:
        # Whatever it costs.
        three = Three(host, {'strategy': 'latency'}, prices=(5, 1, 25))
        for fake, ms in zip(three.fakes, (120, 600, 0)):
            fake.set_script(f'*: ttft_ms={ms}')
        three.meet()
        got = three.send(30)
        check(got[2] > 20, f'the quickest: {got}')
        equal(three.explain()[0], ('three/c', 'chosen'), 'llmkit route')
        three.fakes[2].set_script('*: ttft_ms=900')
        three.send(12)
        after = three.send(20)
        print(f'# before {got}, after {after}')
        check(after[0] > 12, f'it became slow: {after}')
        equal(three.explain()[0], ('one/a', 'chosen'), 'llmkit route')


def test_reliability_avoids_what_fails():
    with Host() as host:
        three = Three(host, {'strategy': 'reliability'}, prices=(1, 5, 25))
        three.fakes[0].set_script('*: status=500')
        three.fakes[1].set_script('*: status=500; times=6')
        three.meet(20)
        three.fakes[2].set_script('*: ttft_ms=40')
        got = three.send(40)
        rows = breakers(host)
        print(f'# {got}, errors {[rows[name]["error_ratio"] for name in three.names]}')
        # Of a hundred one goes to who was not tried for a minute, which none of these is.
        check(got[0] <= 2 and got[2] > 30, f'the one that never failed, though it is the slowest: {got}')
        equal([name for name, _ in three.explain()], ['three/c', 'two/b', 'one/a'], 'llmkit route')
        equal(three.explain()[0][1], 'chosen', 'and why')
        check([rows[name]['state'] for name in three.names] == ['closed'] * 3, 'no breaker did that')


def test_balanced_is_by_its_weights():
    routes = {'thrifty': {'cost': 9, 'latency': 1}, 'hasty': {'cost': 1, 'latency': 9},
              'careful': {'cost': 0.1, 'latency': 0.1, 'reliability': 9.8}}
    with Host() as host:
        three = Three(host, *({'name': name, 'strategy': 'balanced', 'weights': weights}
                              for name, weights in routes.items()), prices=(1, 10, 12))
        # a is cheap, b is quick, and both have failed; c is neither, and never did.
        for fake in three.fakes[:2]:
            fake.set_script('*: status=500')
        three.meet(2)
        for fake, ms in zip(three.fakes, (300, 0, 300)):
            fake.set_script(f'*: ttft_ms={ms}')
        three.meet()
        for first, route in enumerate(routes):
            got = three.send(14, route)
            print(f'# {route}: {got}')
            check(got[first] > 8, f'{route}: {got}')
            equal(three.explain(route)[0], (three.names[first], 'chosen'), route)


def test_a_limit_of_the_best_sends_to_the_next():
    with Host() as host:
        three = Three(host, {'strategy': 'cost'}, prices=(16, 1, 4),
                      limits=[{'model': 'b', 'requests': '5/day', 'burst': 5}])
        equal(three.send(12), [0, 5, 7], 'five are allowed')
        equal(dict(three.explain())['two/b'], 'out: budget', 'llmkit route')
        equal(limits(host)['model b requests']['rejected'], 0, 'and none had to be refused')
        equal(ask(host, 'b')['status'], LIMITED, 'by its name')


# ---- what is left out, and what is known ----

def test_latency_takes_the_faster():
    for more in ({'stream': True}, {}):
        takes_the_faster(more)


def takes_the_faster(more):
    with Host() as host:
        slow, fast = host.fake(script='*: ttft_ms=200'), host.fake()
        host.configure(
            providers=[host.provider('openai', slow, name='slow'), host.provider('openai', fast, name='fast')],
            models=[{'name': 'a', 'provider': 'slow'}, {'name': 'b', 'provider': 'fast'}],
            routes=[{'name': 'r', 'strategy': 'latency', 'targets': ['a', 'b']}])
        host.start()
        # Ten answers of each, and it knows them.
        for model in ('a', 'b') * 10:
            equal(ask(host, model, more=more)['status'], 0)
        for _ in range(40):
            equal(ask(host, route='r', more=more)['status'], 0)
        print(f'# slow {len(slow.arrivals())}, fast {len(fast.arrivals())}')
        check(len(slow.arrivals()) < 10 + 10, 'the slow one is hardly asked')
        order = choices(host, 'r', '--input', '10', '--output', '10')['targets']
        equal([t['provider'] for t in order], ['fast', 'slow'], 'llmkit route')
        check(order[0]['first_token_us'] < order[1]['first_token_us'], order)


def refused_with(host, status, *words, **options):
    answer = ask(host, route='r', **options)
    equal(answer['status'], status, answer)
    for word in words:
        check(word in answer['message'], f'{word}: {answer}')


def test_filters_and_their_reasons():
    with Host() as host:
        one, two = host.fake(), host.fake()
        host.configure(
            providers=[host.provider('openai', one, name='one'), host.provider('openai', two, name='two')],
            models=[{'name': 'plain', 'provider': 'one', 'capabilities': ['streaming'], 'context': 200,
                     'price': {'input': 1, 'output': 1}},
                    {'name': 'able', 'provider': 'two', 'capabilities': ['tools', 'streaming'], 'context': 400,
                     'price': {'input': 100, 'output': 100}}],
            routes=[{'name': 'r', 'targets': ['plain', 'able'], 'price_cap': '0.02 USD'}])
        host.start()
        tools = {'tools': [{'type': 'function', 'function': {'name': 'f'}}]}
        image = {'messages': [{'role': 'user', 'content': [
            {'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,AAAA'}}]}]}
        equal(ask(host, route='r')['status'], 0)
        equal(ask(host, route='r', more=tools)['status'], 0)
        equal([len(one.arrivals()), len(two.arrivals())], [1, 1], 'tools need the second')
        refused_with(host, NO_TARGET, 'one/plain (out: capability)', 'two/able (out: capability)', more=image)
        refused_with(host, CONTEXT_LENGTH, 'one/plain (out: context)', 'two/able (out: context)',
                     text='word ' * 1000)
        refused_with(host, NO_TARGET, 'one/plain (out: context)', 'two/able (out: price)', max_tokens=250)
        equal([len(one.arrivals()), len(two.arrivals())], [1, 1], 'nothing was sent')
        equal(last_of(host.chat('x', '-r', 'r', '-n', '10'))['type'], 'end', 'still usable')
        why = {f'{c["provider"]}/{c["model"]}': c['reason']
               for c in choices(host, 'r', '--needs', 'vision')['targets']}
        equal(why, {'one/plain': 'out: capability', 'two/able': 'out: capability'}, 'llmkit route --explain')


if __name__ == '__main__':
    main()
