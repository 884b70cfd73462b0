#!/usr/bin/env python3
"""Limits, breakers and routes of a whole host: a real daemon, providers that keep an exact log of what
reached them, the tool, and processes that hold something and are killed, stopped and orphaned."""
import email.utils
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import wire
from harness import BUILD, SOURCE, Host, clean_environment, last_of
from tap import check, equal, main, wait_for

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


def holds(host):
    return host.dump()['holds']


def all_settled(host):
    """Nothing is in flight anywhere."""
    return not holds(host) and not any(row['held'] for row in limits(host).values()) and \
        not any(row['pending'] for row in breakers(host).values())


# ---- 1. tokens ----

TOKENS = {'rate': 100, 'burst': 600}
CALLS = {'rate': 20, 'burst': 5}
TTFT_MS = 60


def worst_overrun(spans, rate_per_s, burst):
    """How much more than burst + rate * t a provider saw in any window, if of each (first, last, units)
    it counted the units at the worst instant from first to last. Negative: how much was left."""
    worst = -burst
    starts = sorted({first for first, _, _ in spans} | {last for _, last, _ in spans})
    for a in starts:
        for b in starts:
            if b < a:
                continue
            seen = sum(units for first, last, units in spans if last >= a and first <= b)
            worst = max(worst, seen - burst - rate_per_s * (b - a) / NS)
    return worst


def test_the_oracle_finds_what_is_too_much():
    equal(worst_overrun([(0, 0, 5), (NS // 2, NS // 2, 5)], 10, 5), 0)
    equal(worst_overrun([(0, 0, 5), (NS // 2, NS // 2, 5), (NS, NS, 6)], 10, 5), 1)
    equal(worst_overrun([(0, NS, 5), (NS // 2, NS // 2, 3)], 10, 5), 3, 'in flight together')


def ask_for_a_while(host, seed, seconds, sent, refusals):
    chance, caller = random.Random(seed), Caller(host)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        name, used = f'{seed}-{number}', chance.choice((5, 40, 80, 120))
        began_ns = boottime_ns()
        # A new tag each time: nothing is learned, so that what is held is never too little.
        answer = caller.ask(f'openai/fake?input_tokens=1&output_tokens={used}&ttft_ms={TTFT_MS}&chunks=1',
                            text=name, tag=name, max_tokens=chance.choice((120, 150)),
                            more={'stream': True})
        if answer['status'] == 0:
            sent[name] = began_ns
        else:
            equal(answer['status'], LIMITED, answer)
            refusals.append(answer)
            time.sleep(0.005 + min(answer.get('retry_after_ns', 0) / NS, 0.2))
    caller.close()


def test_many_clients_never_send_more_than_allowed():
    with Host() as host:
        fake = host.fake(log_bodies=True)
        host.configure(providers=[host.provider('openai', fake)], limits=[
            {'provider': 'openai', 'tokens': f'{TOKENS["rate"] * 60}/min',
             'requests': f'{CALLS["rate"]}/s',
             'burst': {'tokens': TOKENS['burst'], 'requests': CALLS['burst']}}])
        host.start()
        sent, refusals = {}, []
        each(range(8), lambda seed: ask_for_a_while(host, seed, 5, sent, refusals))
        log = fake.log()
        ends = {line['n']: line for line in log if line['event'] == 'end'}
        arrivals = [line for line in log if line['event'] == 'arrival']
        names = {a['n']: a['body']['messages'][-1]['content'] for a in arrivals}
        equal(sorted(names.values()), sorted(sent), 'all that arrived was answered, once')
        # The answer took this long at least, so whenever the provider counts, it may be then.
        tokens = [(a['ns'], a['ns'] + TTFT_MS * 10**6,
                   ends[a['n']]['input_tokens'] + ends[a['n']]['output_tokens']) for a in arrivals]
        over = worst_overrun(tokens, TOKENS['rate'], TOKENS['burst'])
        check(over <= 0, f'{over} tokens too much')
        # A request on its way may be late; it was let in after it was sent by the client.
        calls = sorted((a['ns'], sent[names[a['n']]]) for a in arrivals)
        for _, from_ns in calls:
            for to_ns, _ in calls:
                seen = sum(1 for at, since in calls if since >= from_ns and at <= to_ns)
                check(seen <= CALLS['burst'] + CALLS['rate'] * (to_ns - from_ns) / NS or to_ns < from_ns,
                      f'{seen} requests within {(to_ns - from_ns) / NS} s')
        used = sum(units for _, _, units in tokens)
        print(f'# {len(arrivals)} requests, {used} tokens, {len(refusals)} refusals; at best {-over:.0f} '
              'tokens more would have fitted')
        check(len(arrivals) > 10 and len(refusals) > 10, 'the limits were at work')
        equal({r['limit'] for r in refusals} - {'provider openai tokens', 'provider openai requests'},
              set(), 'who refused')
        check(any(r['limit'] == 'provider openai tokens' for r in refusals), 'tokens were short')
        wait_for(lambda: all_settled(host), what='all is settled')


def test_a_refusal_names_the_limit_its_use_and_the_wait():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())],
                       limits=[{'provider': 'openai', 'tokens': '12000/min', 'burst': 300}])
        host.start()
        model = 'openai/fake?input_tokens=50&output_tokens=200'
        equal(ask(host, model, max_tokens=210)['status'], 0, 'fits')
        refused = ask(host, model, max_tokens=210)
        equal((refused['status'], refused['limit']), (LIMITED, 'provider openai tokens'), refused)
        said = re.fullmatch(r'limit provider openai tokens is used up: (\d+) of (\d+) used, (\d+) asked for: '
                            r'retry in (\d+\.\d+) s', refused['message'])
        check(said, refused['message'])
        used, burst, asked, wait_s = [float(number) for number in said.groups()]
        check(0 < used <= 250 and burst == 300 and 210 < asked < 300, refused['message'])
        # 200 tokens a second.
        exact_s = (used + asked - burst) / 200
        check(abs(wait_s - exact_s) < 0.006, f'{wait_s} but {exact_s}: {refused["message"]}')
        equal(round(refused['retry_after_ns'] / NS, 3), wait_s, 'the same as a number')
        time.sleep(refused['retry_after_ns'] / NS)
        equal(ask(host, model, max_tokens=210)['status'], 0, 'after the wait')
        never = ask(host, model, max_tokens=400)
        equal((never['status'], never['limit'], never.get('retry_after_ns', 0)),
              (NEVER_FITS, 'provider openai tokens', 0), never)
        check('the burst is 300' in never['message'], never['message'])


# ---- 2. templates ----

def test_each_user_has_a_bucket_of_his_own():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())],
                       limits=[{'user': 'boss', 'requests': '5/day', 'burst': 3}],
                       templates={'per_user': {'requests': '1/day', 'burst': 2}})
        host.start()
        equal(set(limits(host)), {'user boss requests'}, 'before anybody came')
        for user, may in (('ann', 2), ('ben', 2), ('boss', 3)):
            codes = [ask(host, 'openai/fake', user=user)['status'] for _ in range(may + 2)]
            equal(codes, [0] * may + [LIMITED] * 2, user)
        rows = limits(host)
        equal({label: row['template'] for label, row in rows.items()},
              {'user boss requests': False, 'user ann requests': True, 'user ben requests': True}, 'rows')
        equal([ask(host, 'openai/fake')['status'] for _ in range(4)], [0] * 4, 'without a user')
        # The library gets such a row too, made by the daemon when it asks.
        member = Member(host)
        member.good('scope', user='cat')
        equal([member.do('acquire', n=1)['code'] for _ in range(3)],
              ['LLMKIT_OK', 'LLMKIT_OK', 'LLMKIT_E_LIMITED'], 'a member')
        equal(ask(host, 'openai/fake', user='cat')['status'], LIMITED, 'the same row')


def test_idle_rows_give_way_and_busy_ones_do_not():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())], tables={'limits': 8},
                       limits=[{'user': 'boss', 'concurrency': 5}],
                       templates={'per_user': {'concurrency': 2}})
        host.start()
        equal(len(host.dump()['header']['sections']), 12, 'sections')
        rows = [s['rows'] for s in host.dump()['header']['sections'] if s['type'] == 1][0]
        busy = [f'busy-{i}' for i in range(3)]
        members = {user: Member(host) for user in busy}
        for user, member in members.items():
            member.good('scope', user=user)
            member.good('lease', slot=0, requests=1)
        for i in range(40):
            equal(ask(host, 'openai/fake', user=f'idle-{i}')['status'], 0, f'user {i}')
        now = limits(host)
        check(len(now) <= rows, f'{len(now)} of {rows}')
        for label in ['user boss concurrency'] + [f'user {user} concurrency' for user in busy]:
            check(label in now, f'{label} is still there')
        equal([now[f'user {user} concurrency']['held'] for user in busy], [1, 1, 1], 'and what it holds')
        # All are busy: nobody else gets a row, and is told why.
        more = [Member(host) for _ in range(rows - 1 - len(busy))]
        for i, member in enumerate(more):
            member.good('scope', user=f'more-{i}')
            member.good('lease', slot=0, requests=1)
        refused = ask(host, 'openai/fake', user='late')
        equal(refused['status'], BUSY, refused)
        check('tables' in refused['message'] and 'full' in refused['message'], refused['message'])
        equal(members[busy[0]].do('scope', user='later')['code'], 'LLMKIT_E_BUSY', 'the library too')
        equal(ask(host, 'openai/fake', user='boss')['status'], 0, 'others go on')
        more[0].good('cancel', slot=0)
        equal(ask(host, 'openai/fake', user='late')['status'], 0, 'one became idle')


# ---- 3. concurrency ----

SLOW = 'openai/fake?chunks=1000&delay_ms=50'


def host_of_slots(host, slots, **more):
    fake = host.fake()
    host.configure(providers=[host.provider('openai', fake)],
                   limits=[{'provider': 'openai', 'concurrency': slots}], **more)
    host.start()
    return fake


def in_use(host):
    return limit(host, 'provider openai concurrency')['held']


def test_never_more_than_so_many_at_once():
    with Host() as host:
        fake = host_of_slots(host, 3)

        def work(seed):
            caller, chance = Caller(host), random.Random(seed)
            for _ in range(12):
                answer = caller.ask(f'openai/fake?ttft_ms={chance.choice((0, 5, 15))}')
                check(answer['status'] in (0, LIMITED), answer)
                if answer['status'] == LIMITED:
                    equal(answer['limit'], 'provider openai concurrency', answer)
                    check('retry when another request has ended' in answer['message'], answer)
                    time.sleep(0.005)
            caller.close()

        each(range(10), work)
        most = fake.stats()['in_flight_max']
        equal(most, 3, 'at once at the provider')
        wait_for(lambda: all_settled(host), what='all is settled')


def test_slots_come_back_however_a_request_ends():
    with Host() as host:
        fake = host_of_slots(host, 2)
        caller = Caller(host)
        numbers = [caller.send(SLOW, more={'stream': True}) for _ in range(2)]
        wait_for(lambda: in_use(host) == 2, what='both are in flight')
        equal(ask(host, SLOW)['status'], LIMITED, 'a third')
        # cancelled
        for number in numbers:
            caller.client.send(wire.CANCEL, number)
            caller.finish(number)
        wait_for(lambda: in_use(host) == 0, what='cancelled')
        # its client is killed
        chat = subprocess.Popen(host.tool_command('chat', '--json', '-m', SLOW, 'x'), stdout=subprocess.PIPE,
                                env=clean_environment(LLMKIT_SOCKET=host.socket))
        host.workers.append(chat)
        wait_for(lambda: in_use(host) == 1, what='in flight')
        chat.kill()
        wait_for(lambda: in_use(host) == 0, what='its client is dead')
        # the provider fails, in each way
        for script in ('status=500', 'cut=rst&cut_bytes=3', 'malformed=json&chunks=3'):
            check(caller.ask('openai/fake?' + script, more={'stream': True})['status'] != 0, script)
            wait_for(lambda: in_use(host) == 0, what=script)
        # its deadline passes
        equal(caller.ask(SLOW, timeout_ms=50, more={'stream': True})['status'], 13, 'DEADLINE')
        wait_for(lambda: all_settled(host), what='all is settled')
        fake.wait_stats(lambda s: s['in_flight'] == 0)


# ---- 4. money ----

def test_money_of_a_day_is_spent_by_usage_and_price():
    with Host() as host:
        fake = host.fake()
        host.configure(
            providers=[host.provider('openai', fake)],
            models=[{'name': 'm', 'provider': 'openai', 'upstream': 'm?input_tokens=1000&output_tokens=500',
                     'price': {'input': 2, 'output': 10}}],
            limits=[{'provider': 'openai', 'money': '0.02 USD/day'}])
        host.start()
        # 1000 * $2 / 1M + 500 * $10 / 1M = $0.007 each.
        equal([ask(host, 'm', max_tokens=500)['status'] for _ in range(2)], [0, 0], 'the first two')
        row = limit(host, 'provider openai money')
        equal((row['owed'], row['held'], row['burst']), (14_000_000, 0, 20_000_000), 'nano-USD')
        equal(ask(host, 'm', max_tokens=500)['status'], 0, 'the third fits: it may cost $0.0055')
        equal(limit(host, 'provider openai money')['owed'], 21_000_000, 'and costs more')
        refused = ask(host, 'm', max_tokens=500)
        equal((refused['status'], refused['limit']), (LIMITED, 'provider openai money'), refused)
        midnight_s = 86400 - time.time() % 86400
        check(abs(refused['retry_after_ns'] / NS - midnight_s) < 60 or midnight_s < 60,
              f'until midnight: {refused}')
        text = host.tool('limits').stdout
        check(re.search(r'provider openai money +\$0\.02/day +\$0\.02 +\$0\.02', text), text)
        equal(len(fake.arrivals()), 3, 'arrivals')


# ---- 5. members that die, stop, and outlive the daemon ----

HELD_LIMITS = [{'provider': 'openai', 'tokens': '1000000/day', 'concurrency': 8, 'burst': 1000000}]


def held(host):
    rows = limits(host)
    return (rows['provider openai tokens']['held'], rows['provider openai concurrency']['held'])


def host_of_members(host, **more):
    fake = host.fake()
    host.configure(providers=[host.provider('openai', fake)], limits=HELD_LIMITS,
                   models=[{'name': 'm', 'provider': 'openai'}], **more)
    host.start()
    return fake


def holding(host, tokens=100, leases=2):
    member = Member(host)
    member.good('scope', provider='openai')
    for slot in range(leases):
        member.good('lease', slot=slot, requests=1, input=tokens // 2, output=tokens // 2)
    return member


def buried(host, pid):
    """The dump once the process has no row; participants come before holds and breakers in it."""
    dump = host.dump()
    return None if any(p['pid'] == pid for p in dump['participants']) else dump


def test_what_a_killed_member_held_comes_back_once():
    with Host() as host:
        host_of_members(host)
        stays, dies = holding(host), holding(host)
        dies.good('progress', slot=0, output=30)
        equal(held(host), (370, 4), 'before')
        before = limit(host, 'provider openai tokens')['owed']
        pid = dies.process.pid
        dies.kill()
        dump = wait_for(lambda: buried(host, pid), what='its death is noticed')
        equal(len(dump['holds']), 2, 'what it held is back before its row is free')
        equal(held(host), (200, 2), 'and the totals with it')
        owed = limit(host, 'provider openai tokens')['owed']
        # What it may have spent counts as used; a day's million leaks 11 tokens a second.
        check(before + 100 <= owed <= before + 170, f'tokens owed: {before}, then {owed}')
        host.daemon.send_signal(signal.SIGHUP)
        time.sleep(0.05)
        equal(held(host), (200, 2), 'once')
        stays.good('settle', slot=0, input=10, output=10)
        stays.good('cancel', slot=1)
        equal(held(host), (0, 0), 'the other still could')
        wait_for(lambda: not [h for h in holds(host)], what='no hold is left')


def test_a_stopped_member_loses_nothing():
    with Host() as host:
        host_of_members(host)
        member = holding(host)
        member.signal(signal.SIGSTOP)
        beats = host.dump()['header']['heartbeat_ns']
        wait_for(lambda: host.dump()['header']['heartbeat_ns'] > beats + 6 * NS, 60, 'six heartbeats')
        equal(held(host), (200, 2), 'all is held')
        member.signal(signal.SIGCONT)
        member.good('settle', slot=0, input=50, output=50)
        member.good('settle', slot=1, input=50, output=50)
        equal(held(host), (0, 0), 'and settled by itself')
        equal(limit(host, 'provider openai tokens')['admitted'], 200, 'counted once')


def test_members_outlive_a_killed_daemon():
    with Host() as host:
        host_of_members(host)
        lives, dies, stopped = holding(host), holding(host), holding(host)
        stopped.signal(signal.SIGSTOP)
        equal(held(host), (600, 6), 'before')
        host.kill()
        dies.kill()
        lives.good('settle', slot=1, input=50, output=50)
        host.start()
        wait_for(lambda: held(host) == (300, 3), what='the dead one is reaped, the others are not')
        lives.good('lease', slot=1, requests=1, input=50, output=50)
        equal(held(host), (400, 4), 'goes on')
        host.kill()
        host.start()
        equal(held(host), (400, 4), 'and over the next')
        stopped.kill()
        wait_for(lambda: held(host) == (200, 2), what='one dies that has no socket of this daemon')
        lives.leave()
        wait_for(lambda: held(host) == (0, 0), what='all left')
        wait_for(lambda: not holds(host), what='no hold is left')


def test_a_probe_of_a_killed_member_comes_back():
    with Host() as host:
        fake = host.fake()
        quick = {'failures': 2, 'backoff': '100ms', 'backoff_max': '100ms', 'probes': 1, 'successes': 1,
                 'lease': '1d'}
        host.configure(providers=[host.provider('openai', fake, breaker='off')],
                       models=[{'name': 'm', 'provider': 'openai', 'breaker': quick}],
                       routes=[{'name': 'both', 'targets': ['m', 'openai/n']}])  # the last one is never refused
        host.start()
        member, other = Member(host), Member(host)
        for m in (member, other):
            m.good('targets', name='both')
        for _ in range(2):
            member.good('allow', slot=0, target=0)
            member.good('report', slot=0, status=500)
        equal(breakers(host)['openai/m']['state'], 'open', 'two failures')

        def probed():
            return member.do('allow', slot=0, target=0)['code'] == 'LLMKIT_OK'

        wait_for(probed, what='a probe goes out')
        equal(other.do('allow', slot=0, target=0)['code'], 'LLMKIT_E_CIRCUIT_OPEN', 'one at a time')
        equal(breakers(host)['openai/m']['probes_out'], 1, 'out')
        member.kill()
        wait_for(lambda: other.do('allow', slot=0, target=0)['code'] == 'LLMKIT_OK', what='it came back')
        # Again, while no daemon is there to see it.
        host.kill()
        other.kill()
        host.start()
        third = Member(host)
        third.good('targets', name='both')
        third.good('allow', slot=0, target=0)
        third.good('report', slot=0, status=200)
        equal(breakers(host)['openai/m']['state'], 'closed', 'and closed it')


# ---- 6. breakers ----

QUICK = {'preset': 'production', 'backoff': '200ms', 'backoff_max': '200ms', 'deviation': 0}


def test_a_failing_target_is_left_alone_and_recovers():
    with Host() as host:
        bad, good = host.fake(script='*: status=500'), host.fake()
        host.configure(
            providers=[host.provider('openai', bad, name='bad', breaker='off'),
                       host.provider('openai', good, name='good', breaker='off')],
            models=[{'name': 'm', 'provider': 'bad', 'breaker': QUICK}, {'name': 'n', 'provider': 'good'}],
            routes=[{'name': 'both', 'targets': ['m', 'n']}])
        host.start()
        # The fifth failure in a row opens it.
        for i in range(5):
            equal(breakers(host)['bad/m']['state'], 'closed', f'after {i}')
            equal(ask(host, route='both')['status'], 0, 'the other answers')
        row = breakers(host)['bad/m']
        equal((row['state'], row['errors'], row['requests']), ('open', 5, 5), row)
        equal(len(bad.arrivals()), 5, 'asked')
        # It heals: a probe finds out, and two good ones close it.
        bad.set_script('')

        def closed():
            equal(ask(host, route='both')['status'], 0, 'goes on')
            return breakers(host)['bad/m']['state'] == 'closed'

        wait_for(closed, 30, 'it closes again')
        equal(breakers(host)['bad/m']['errors'], 5, 'no more errors')
        told = [e for e in host.dump()['events'] if e['value'] or e['what']]
        check(len(told) >= 3, 'open, half-open and closed are events')


def test_a_model_that_nobody_configured_has_its_providers_breaker():
    with Host() as host:
        fake = host.fake(script='*: status=500')
        host.configure(providers=[host.provider('openai', fake, name='never', breaker='off'),
                                  host.provider('openai', fake, name='soon', breaker='aggressive')])
        host.start()
        for model in ('never/x', 'soon/x') * 4 + ('never/x',) * 4:
            equal(ask(host, model)['status'], PROVIDER_ERROR, model)
        rows = breakers(host)
        equal((rows['never/x']['state'], rows['soon/x']['state']), ('closed', 'open'), 'states')
        equal(rows['never/x']['errors'], 8, 'but counted')


def test_probes_go_out_one_at_a_time():
    with Host() as host:
        sick, well = host.fake(script='*: status=500'), host.fake()
        one = {**QUICK, 'probes': 1, 'successes': 3}
        host.configure(
            providers=[host.provider('openai', sick, name='sick', breaker='off'),
                       host.provider('openai', well, name='well', breaker='off')],
            models=[{'name': 'm', 'provider': 'sick', 'breaker': one}, {'name': 'n', 'provider': 'well'}],
            routes=[{'name': 'both', 'targets': ['m', 'n']}])
        host.start()
        for _ in range(5):
            equal(ask(host, route='both')['status'], 0)
        equal((breakers(host)['sick/m']['state'], len(sick.arrivals())), ('open', 5), 'open')
        slow_ms = 150
        sick.set_script(f'*: first_ms={slow_ms}')

        def work(_):
            caller = Caller(host)
            while len(sick.arrivals()) < 8:
                equal(caller.ask(route='both')['status'], 0)
            caller.close()

        each(range(6), work)
        at = [a['ns'] for a in sick.arrivals()[5:8]]
        for before, after in zip(at, at[1:]):
            check(after - before >= slow_ms * 10**6, f'the next before the last had ended: {at}')


def test_the_only_target_is_called_all_the_same():
    with Host() as host:
        fake = host.fake(script='*: status=500')
        slow = {**QUICK, 'backoff': '1h', 'backoff_max': '1h'}
        host.configure(providers=[host.provider('openai', fake, breaker='off')],
                       models=[{'name': 'm', 'provider': 'openai', 'breaker': slow}],
                       routes=[{'name': 'only', 'targets': ['m']}])
        host.start()
        for _ in range(5):
            equal(ask(host, 'm')['status'], PROVIDER_ERROR, 'fails')
        equal(breakers(host)['openai/m']['state'], 'open', 'open')
        fake.set_script('')
        equal(ask(host, 'm')['status'], 0, 'better than none')
        equal(ask(host, route='only')['status'], 0, 'by its route too')
        equal(breakers(host)['openai/m']['state'], 'open', 'that is no probe')
        equal(len(fake.arrivals()), 7, 'arrivals')


def test_breakers_by_hand():
    with Host() as host:
        one, two = host.fake(), host.fake()
        host.configure(providers=[host.provider('openai', one, name='one'),
                                  host.provider('openai', two, name='two')],
                       models=[{'name': 'm', 'provider': 'one', 'breaker': QUICK}],
                       routes=[{'name': 'both', 'targets': ['m', 'two/m']}])
        host.start()
        equal(ask(host, route='both')['status'], 0)
        acted(host, 'breakers', 'open', 'one/m')
        row = breakers(host)['one/m']
        equal((row['state'], row['forced']), ('open', True), row)
        for _ in range(4):
            equal(ask(host, route='both')['status'], 0, 'the other')
            time.sleep(0.1)  # twice its backoff in all: time does not close it
        equal((len(one.arrivals()), len(two.arrivals())), (1, 4), 'who was asked')
        refused = ask(host, 'm')
        check(refused['status'] in (CIRCUIT_OPEN, NO_TARGET), refused)
        host.kill()
        host.start()
        equal(breakers(host)['one/m']['forced'], True, 'also over the next daemon')
        acted(host, 'breakers', 'close', 'one/m')
        equal((ask(host, 'm')['status'], breakers(host)['one/m']['state']), (0, 'closed'), 'closed')
        acted(host, 'breakers', 'open', 'two')
        equal(ask(host, 'two/x')['status'] in (CIRCUIT_OPEN, NO_TARGET), True, 'a whole provider')
        acted(host, 'breakers', 'reset', 'two')
        equal((ask(host, 'two/x')['status'], breakers(host)['two']['state']), (0, 'closed'), 'reset')
        out = host.tool('breakers', 'open', 'nosuch')
        check(out.returncode != 0 and 'no target "nosuch"' in out.stderr, out.stderr)


# ---- 7. what providers say of their limits ----

def hammer_until_good(host, model, clients=4):
    """Everybody asks until one is answered."""
    done = threading.Event()

    def work(_):
        caller = Caller(host)
        while not done.is_set():
            if caller.ask(model)['status'] == 0:
                done.set()
            time.sleep(0.01)
        caller.close()

    each(range(clients), work)


def pause_of(script, **options):
    """(ns from the refused request to the next that arrives, the refusal, the arrivals)."""
    with Host() as host:
        fake = host.fake(script=f'*: {script}; times=1')
        host.configure(providers=[host.provider(options.get('family', 'openai'), fake, name='p')],
                       limits=[{'provider': 'p', 'requests': '1000/s'}])
        host.start()
        refused = ask(host, 'p/fake')
        equal(refused['status'], PROVIDER_LIMITED, refused)
        check(refused['retry_after_ns'], f'how long: {refused}')
        waiting = ask(host, 'p/fake')
        equal(waiting['status'], LIMITED, waiting)
        check(waiting['retry_after_ns'], waiting)
        row = limit(host, 'provider p requests')
        check(row['paused_ns'] > 0, f'the limit pauses: {row}')
        hammer_until_good(host, 'p/fake')
        arrivals = fake.arrivals()
        return arrivals[1]['ns'] - arrivals[0]['ns'], refused, arrivals


def wall_of(arrival):
    """Unix time in ns."""
    return arrival['ns'] + time.time_ns() - boottime_ns()


def test_nobody_sends_while_a_429_asks_for_a_pause():
    for script, least_ms in (
            ('status=429; retry_after=1', 1000),
            ('status=429; retry_after_ms=700', 700),
            ('status=429; retry_after=5; retry_after_ms=600', 600),
            ('status=429; headers=x-ratelimit-remaining-requests: 0|x-ratelimit-reset-requests: 800ms', 800),
            ('status=429; error_message=Please try again in 0.75s.', 750)):
        gap_ns, refused, _ = pause_of(script)
        check(gap_ns >= least_ms * 10**6, f'{script}: the next came after {gap_ns / 10**6} ms')
        check(refused['retry_after_ns'] <= least_ms * 10**6, f'{script}: no longer than asked: {refused}')


def test_a_pause_until_a_date():
    until = int(time.time()) + 3
    gap_ns, _, arrivals = pause_of(f'status=429; retry_after={email.utils.formatdate(until, usegmt=True)}')
    check(wall_of(arrivals[1]) >= until * NS, f'not before the date, but after {gap_ns / NS} s')
    until = time.time() + 2
    stamp = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(until))
    gap_ns, _, arrivals = pause_of(
        'status=429; headers=anthropic-ratelimit-requests-remaining: 0|'
        f'anthropic-ratelimit-requests-reset: {stamp}', family='anthropic')
    check(wall_of(arrivals[1]) >= int(until) * NS, f'not before the date, but after {gap_ns / NS} s')


def test_overload_with_a_time_pauses_and_the_operator_can_end_it():
    with Host() as host:
        fake = host.fake(script='*: status=503; retry_after=300; times=1')
        host.configure(providers=[host.provider('openai', fake)],
                       limits=[{'provider': 'openai', 'requests': '1000/s'}])
        host.start()
        check(ask(host, 'openai/fake')['status'] != 0, '503')
        refused = ask(host, 'openai/fake')
        check(refused['status'] == LIMITED and refused['retry_after_ns'] > 200 * NS, refused)
        acted(host, 'limits', 'resume', 'provider openai requests')
        equal(limit(host, 'provider openai requests')['paused_ns'], 0, 'resumed')


def heard(per_minute):
    return f'*: headers=x-ratelimit-limit-requests: {per_minute}'


def rate_of(host, label='provider openai requests'):
    row = limit(host, label)
    return row['limit'] * NS // row['window_ns'], row['burst']


def test_limits_are_learned_and_lowered():
    with Host() as host:
        fake = host.fake(script=heard(1800))
        host.configure(providers=[host.provider('openai', fake)],
                       limits=[{'provider': 'openai', 'requests': '50/s auto'},
                               {'model': 'own', 'requests': '100/s'}])
        host.start()

        def rates():
            return rate_of(host)[0], rate_of(host, 'model own requests')[0]

        def ask_a_few(times=3):
            for model in ('openai/fake', 'openai/own') * times:
                equal(ask(host, model)['status'], 0)

        ask_a_few(2)
        beats = host.dump()['header']['heartbeat_ns']
        wait_for(lambda: host.dump()['header']['heartbeat_ns'] > beats + 2 * NS, what='two heartbeats')
        equal(rates(), (50, 100), 'twice is not enough')
        ask_a_few(1)
        wait_for(lambda: rates() == (30, 30), what='both follow down to 30 a second, auto or not')
        fake.set_script(heard(12000))
        ask_a_few()
        wait_for(lambda: rates()[0] == 200, what='auto follows up')
        beats = host.dump()['header']['heartbeat_ns']
        wait_for(lambda: host.dump()['header']['heartbeat_ns'] > beats + 2 * NS, what='two heartbeats')
        check(rates()[1] <= 100, 'the other never above what is configured')
        fake.set_script('')
        acted(host, 'reload')
        equal(rates(), (50, 100), 'a reload restores')


# ---- 8. routes ----

def choices(host, *arguments):
    out = host.tool('route', *arguments, '--json', '--explain')
    return json.loads(out.stdout)


def test_cost_takes_the_cheaper():
    with Host() as host:
        dear, cheap = host.fake(), host.fake()
        host.configure(
            providers=[host.provider('openai', dear, name='dear'), host.provider('openai', cheap, name='cheap')],
            models=[{'name': 'a', 'provider': 'dear', 'price': {'input': 10, 'output': 30}},
                    {'name': 'b', 'provider': 'cheap', 'price': {'input': 1, 'output': 3}}],
            routes=[{'name': 'r', 'strategy': 'cost', 'targets': ['a', 'b']}])
        host.start()
        for _ in range(20):
            equal(ask(host, route='r')['status'], 0)
        equal((len(dear.arrivals()), len(cheap.arrivals())), (0, 20), 'arrivals')


def test_latency_takes_the_faster():
    with Host() as host:
        slow, fast = host.fake(script='*: ttft_ms=200'), host.fake()
        host.configure(
            providers=[host.provider('openai', slow, name='slow'), host.provider('openai', fast, name='fast')],
            models=[{'name': 'a', 'provider': 'slow'}, {'name': 'b', 'provider': 'fast'}],
            routes=[{'name': 'r', 'strategy': 'latency', 'targets': ['a', 'b']}])
        host.start()
        # Ten answers of each, and it knows them.
        for model in ('a', 'b') * 10:
            equal(ask(host, model, more={'stream': True})['status'], 0)
        for _ in range(40):
            equal(ask(host, route='r', more={'stream': True})['status'], 0)
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


# ---- 9. reload ----

def reload(host, how, good=True, **sections):
    host.configure(**sections)
    if how == 'tool':
        out = host.tool('reload')
        equal(out.returncode == 0, good, out.stdout + out.stderr)
        return out.stdout + out.stderr
    text = 'configuration reloaded' if good else 'reload failed'
    before = host.log_text().count(text)
    host.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: host.log_text().count(text) > before, what=text)
    return host.log_text().split(text)[-1]


def test_a_changed_rate_keeps_the_debt_in_units():
    for how in ('signal', 'tool'):
        with Host() as host:
            providers = [host.provider('openai', host.fake())]

            def row(rate, burst):
                return [{'provider': 'openai', 'tokens': rate, 'burst': burst}]

            host.configure(providers=providers, limits=row('86400/day', 1000))
            host.start()
            member = Member(host)
            member.good('scope', provider='openai')
            member.good('lease', slot=0, requests=1, input=600)
            member.good('settle', slot=0, input=600)
            member.good('lease', slot=1, requests=1, input=200)
            began_ns = boottime_ns()
            for rate, burst in (('43200/day', 1000), ('10/day', 900), ('86400/day', 2000)):
                reload(host, how, providers=providers, limits=row(rate, burst))
                now = limit(host, 'provider openai tokens')
                # At most a token a second leaks.
                least = 600 - 1 - (boottime_ns() - began_ns) // NS - 1
                check(least <= now['owed'] <= 600, f'{how} {rate}: {now}')
                equal((now['held'], now['burst']), (200, burst), f'{how} {rate}')


def test_removed_limits_drain():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers, limits=HELD_LIMITS, models=[{'name': 'm', 'provider': 'openai'}])
        host.start()
        member = holding(host)
        reload(host, 'tool', providers=providers)
        equal(limits(host), {}, 'no limit')
        equal(ask(host, 'openai/m')['status'], 0, 'and none is felt')
        for slot in range(2):
            member.good('settle', slot=slot, input=50, output=50)
        wait_for(lambda: not holds(host), what='what was in flight is settled')
        reload(host, 'tool', providers=providers, limits=HELD_LIMITS)
        equal(held(host), (0, 0), 'back, and nothing is in flight')
        member.good('lease', slot=0, requests=1, input=1, output=1)
        equal(held(host), (2, 1), 'the same handle follows')


def test_an_error_changes_nothing_and_says_where():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers, limits=HELD_LIMITS)
        host.start()
        before = limits(host)
        for how in ('tool', 'signal'):
            said = None
            with open(host.config, 'w', encoding='utf-8') as file:
                file.write('limits:\n  - {provider: openai, tokens: 5/s}\n  - {provider: nosuch, money: 1}\n')
            text = 'reload failed'
            if how == 'tool':
                out = host.tool('reload')
                check(out.returncode != 0, out.stdout)
                said = out.stdout + out.stderr
            else:
                count = host.log_text().count(text)
                host.daemon.send_signal(signal.SIGHUP)
                wait_for(lambda: host.log_text().count(text) > count, what=text)
                said = host.log_text().split(text)[-1]
            check(re.search(re.escape(host.config) + r':[1-3]', said), f'{how}: {said}')
            now = limits(host)
            equal({k: (v['limit'], v['burst']) for k, v in now.items()},
                  {k: (v['limit'], v['burst']) for k, v in before.items()}, how)


def test_templates_change():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]

        def with_burst(burst):
            return {'per_user': {'requests': '1/day', 'burst': burst}}

        host.configure(providers=providers, templates=with_burst(2))
        host.start()
        codes = [ask(host, 'openai/fake', user='u')['status'] for _ in range(3)]
        equal(codes, [0, 0, LIMITED], 'two')
        reload(host, 'tool', providers=providers, templates=with_burst(3))
        codes = [ask(host, 'openai/fake', user='u')['status'] for _ in range(2)]
        equal(codes, [0, LIMITED], 'rows that are there follow, with what is owed')
        reload(host, 'tool', providers=providers)
        equal([ask(host, 'openai/fake', user='u')['status'] for _ in range(3)], [0, 0, 0], 'gone')
        equal(limits(host), {}, 'and its rows')


# ---- the page ----

def preset_rows():
    """The table of docs/control-plane.md as {preset: {key: value}}."""
    with open(os.path.join(SOURCE, 'docs', 'control-plane.md'), encoding='utf-8') as file:
        rows = [[cell.strip(' `') for cell in line.split('|')[1:-1]] for line in file if line.startswith('|')]
    head = [row for row in rows if row[-1] == 'conservative'][0]
    table = [row for row in rows if len(row) == len(head) and row != head and row[0] != '---']
    return {name: {row[0]: row[column] for row in table} for column, name in enumerate(head) if name}


def test_the_page_has_the_presets_as_they_are():
    with Host() as host:
        presets = preset_rows()
        equal(sorted(presets), ['aggressive', 'conservative', 'production'], 'presets')
        for name, values in presets.items():
            equal(len(values), 10, f'{name}: {values}')
            settings = {key: value if re.search('[a-z%]', value) else float(value) if '.' in value
                        else int(value) for key, value in values.items()}
            host.configure(providers=[host.provider('openai', host.fake(), breaker=settings)])
            out = subprocess.run(
                [os.path.join(BUILD, 'daemon', 'llmkitd'), '--check-config', host.config],
                capture_output=True, text=True, check=False, env=clean_environment())
            equal(out.returncode, 0, out.stderr)
            # A breaker that is as a preset is printed as that.
            check(f'    breaker: {name}\n' in out.stdout, f'{name}: {out.stdout}')


if __name__ == '__main__':
    main()
