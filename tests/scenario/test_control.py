#!/usr/bin/env python3
"""Limits, breakers and routes of a whole host: a real daemon, providers that keep an exact log of what
reached them, the tool, and processes that hold something and are killed, stopped and orphaned."""
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import wire
from clients import (BUSY, CIRCUIT_OPEN, LIMITED, NEVER_FITS, NS, PROVIDER_ERROR,
                     Caller, Member, acted, all_settled, ask, boottime_ns, breakers, each, events, holds,
                     limit, limits)
from harness import BUILD, SOURCE, Host, clean_environment
from tap import check, equal, main, wait_for

RESOLVE, COMMAND, DONE = 0x05, 0x06, 0x85
BAD_REQUEST, UNKNOWN_MODEL, SHUTTING_DOWN, CANCELLED = 5, 6, 9, 12

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


def next_line(process):
    line = process.stdout.readline()
    check(line, 'it ended')
    return json.loads(line)


def test_a_row_that_gives_way_is_an_event():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())], tables={'limits': 8},
                       templates={'per_user': {'concurrency': 2}})
        host.start()
        for i in range(8):
            equal(ask(host, 'openai/fake', user=f'user-{i}')['status'], 0, f'user {i}')
        equal(events(host, 'evicted'), [], 'there was room')
        before = limits(host)
        equal(len(before), 8, 'full')
        top = subprocess.Popen(host.tool_command('top', '--json', '--interval', '0.1'), stdout=subprocess.PIPE,
                               text=True, env=clean_environment(LLMKIT_SOCKET=host.socket))
        host.workers.append(top)
        equal(len(next_line(top)['limits']), 8, 'it has seen them')
        equal(ask(host, 'openai/fake', user='late')['status'], 0, 'one more')
        told = wait_for(lambda: [event for event in next_line(top)['events'] if event['kind'] == 'evicted'],
                        what='it is told')
        top.kill()
        top.wait(30)
        top.stdout.close()
        gone, = set(before) - set(limits(host))
        equal([(event['text'], event['row']) for event in told],
              [(f'limit {gone}: made room for another', told[0]['row'])], 'who had to go')
        equal((gone, before[gone]['template']), ('user user-0 concurrency', True), 'the one unused for longest')
        equal(len(events(host, 'evicted')), 1, 'once')
        for i in range(5):
            equal(ask(host, 'openai/fake', user=f'later-{i}')['status'], 0, f'later {i}')
        equal(len(events(host, 'evicted')), 6, 'each time')


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


# ---- 4. members that die, stop, and outlive the daemon ----

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


def tell_how_long(host, killed_ns, pid):
    """From the kill to what it held coming back, as the daemon's own event has it."""
    left = [e for e in events(host, 'participant') if (e['value'], e['to']) == (pid, 0)]
    equal(len(left), 1, 'buried once')
    print(f'# returned after {(left[0]["time_ns"] - killed_ns) / 10**6:.1f} ms')


def test_what_a_killed_member_held_comes_back_once():
    with Host() as host:
        host_of_members(host)
        stays, dies = holding(host), holding(host)
        dies.good('progress', slot=0, output=30)
        equal(held(host), (370, 4), 'before')
        before = limit(host, 'provider openai tokens')['owed']
        pid, killed_ns = dies.process.pid, boottime_ns()
        dies.kill()
        dump = wait_for(lambda: buried(host, pid), what='its death is noticed')
        tell_how_long(host, killed_ns, pid)
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


def test_slots_tokens_and_a_probe_come_back_together():
    with Host() as host:
        fake = host.fake()
        breaker = {'failures': 2, 'backoff': '100ms', 'backoff_max': '100ms', 'probes': 1, 'successes': 1,
                   'lease': '1d'}
        host.configure(providers=[host.provider('openai', fake, breaker='off')], limits=HELD_LIMITS,
                       models=[{'name': 'm', 'provider': 'openai', 'breaker': breaker}],
                       routes=[{'name': 'both', 'targets': ['m', 'openai/n']}])
        host.start()
        dies, other = holding(host, leases=3), Member(host)
        for member in (dies, other):
            member.good('targets', name='both')
        for _ in range(2):
            other.good('allow', slot=0, target=0)
            other.good('report', slot=0, status=500)
        wait_for(lambda: dies.do('allow', slot=0, target=0)['code'] == 'LLMKIT_OK', what='a probe goes out')
        row = breakers(host)['openai/m']
        equal((held(host), row['probes_out'], row['state']), ((300, 3), 1, 'half-open'), 'all that it holds')
        pid, killed_ns = dies.process.pid, boottime_ns()
        dies.kill()
        dump = wait_for(lambda: buried(host, pid), what='its death is noticed')
        equal(dump['holds'], [], 'no hold is left')
        row = breakers(host)['openai/m']
        equal((held(host), row['probes_out'], row['pending']), ((0, 0), 0, 0), 'all is back, at once')
        tell_how_long(host, killed_ns, pid)
        beats = host.dump()['header']['heartbeat_ns']
        wait_for(lambda: host.dump()['header']['heartbeat_ns'] > beats + 2 * NS, what='two heartbeats')
        equal(held(host), (0, 0), 'once')
        other.good('allow', slot=0, target=0)
        equal(other.do('allow', slot=1, target=0)['code'], 'LLMKIT_E_CIRCUIT_OPEN', 'one probe, not two')
        other.good('report', slot=0, status=200)
        equal(breakers(host)['openai/m']['state'], 'closed', 'and it closes')


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


# ---- 5. breakers ----

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


def in_flight_at(log):
    """[(ns, in flight, ended)] of each arrival."""
    begun = ended = 0
    out = []
    for line in sorted(log, key=lambda line: line['ns']):
        if line['event'] == 'arrival':
            begun += 1
            out.append((line['ns'], begun - ended, ended))
        ended += line['event'] == 'end'
    return out


def test_who_recovered_is_given_more_and_more():
    crowd = 24
    with Host() as host:
        sick, well = host.fake(), host.fake()
        host.configure(
            providers=[host.provider('openai', sick, name='sick', breaker='off'),
                       host.provider('openai', well, name='well', breaker='off')],
            models=[{'name': 'm', 'provider': 'sick', 'breaker': {**QUICK, 'probes': 1, 'successes': 1},
                     'price': {'input': 1, 'output': 1}},
                    {'name': 'n', 'provider': 'well', 'price': {'input': 90, 'output': 90}}],
            routes=[{'name': 'both', 'strategy': 'cost', 'targets': ['m', 'n']}])
        host.start()
        for model in ('m', 'n') * 10:
            equal(ask(host, model)['status'], 0, model)
        sick.set_script('*: status=500')
        for _ in range(5):
            equal(ask(host, 'm')['status'], PROVIDER_ERROR, 'fails')
        equal(breakers(host)['sick/m']['state'], 'open', 'open')
        sick.set_script('*: first_ms=300')

        def at_once(_):
            equal(ask(host, route='both')['status'], 0, 'answered')

        def half_open():
            equal(ask(host, route='both')['status'], 0)
            return len(sick.arrivals()) > 15

        prober = threading.Thread(target=lambda: wait_for(half_open, 60, 'a probe'))
        prober.start()
        row = wait_for(lambda: (lambda b: b if b['state'] == 'half-open' else None)(breakers(host)['sick/m']),
                       what='half-open')
        equal((row['probes_out'], row['forced']), (1, False), row)
        prober.join(60)
        row = breakers(host)['sick/m']
        equal((row['state'], row['probes_out'], row['errors']), ('closed', 0, 5), row)
        told = [e for e in events(host, 'breaker') if 'sick/m' in e['text']]
        equal([re.sub(', again after .*', '', e['text']) for e in told],
              ['breaker sick/m: closed -> open, failures in a row', 'breaker sick/m: open -> half-open, time',
               'breaker sick/m: half-open -> closed, recovered'], 'llmkit top')
        # One, then twice as many for each that was answered, and for each second.
        probes = len(sick.arrivals())
        each(range(crowd), at_once)
        seen = in_flight_at([line for line in sick.log() if line['n'] > probes])
        print(f'# of {crowd} at once: {[count for _, count, _ in seen]}')
        for ns, count, ended in seen:
            may = 2 ** (ended + (ns - told[-1]['time_ns']) // NS)
            check(count <= may, f'{count} in flight where {may} may be: {seen}')
        for _ in range(10):
            at_once(None)
        sick.reset()
        each(range(crowd), at_once)
        equal(sick.stats()['in_flight_max'], crowd, 'all of them, in the end')


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
        equal(refused['status'], CIRCUIT_OPEN, refused)
        check('opened by hand: llmkit breakers close one/m' in refused['message'], refused)
        host.kill()
        host.start()
        equal(breakers(host)['one/m']['forced'], True, 'also over the next daemon')
        acted(host, 'breakers', 'close', 'one/m')
        equal((ask(host, 'm')['status'], breakers(host)['one/m']['state']), (0, 'closed'), 'closed')
        acted(host, 'breakers', 'open', 'two')
        refused = ask(host, 'two/x')
        equal(refused['status'], CIRCUIT_OPEN, refused)
        check('opened by hand: llmkit breakers close two' in refused['message'], refused)
        acted(host, 'breakers', 'reset', 'two')
        equal((ask(host, 'two/x')['status'], breakers(host)['two']['state']), (0, 'closed'), 'reset')
        out = host.tool('breakers', 'open', 'nosuch')
        check(out.returncode != 0 and 'no target "nosuch"' in out.stderr, out.stderr)


# ---- 6. reload ----

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


# ---- what participants may ask the daemon ----

def told(client, kind, **body):
    """(status, message) of the DONE that answers RESOLVE or COMMAND."""
    client.send(kind, 77, body)
    got, number, answer = client.read()
    equal((got, number), (DONE, 77), answer)
    return answer['status'], answer.get('message', '')


def test_commands_say_what_is_wrong_with_them():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())],
                       limits=[{'provider': 'openai', 'requests': '5/day', 'burst': 3}],
                       templates={'per_user': {'requests': '1/day', 'burst': 2}})
        host.start()
        client = wire.Client(host.socket)
        before = limits(host)
        for verb, name, status, word in (
                ('frob', '', BAD_REQUEST, 'no command "frob"'),
                ('', '', BAD_REQUEST, 'no command ""'),
                ('limit-reset', 'provider nosuch requests', BAD_REQUEST, 'no limit "provider nosuch requests"'),
                ('limit-reset', 'provider', BAD_REQUEST, 'no limit "provider"'),
                ('limit-resume', 'provider openai frobs', BAD_REQUEST, 'llmkit limits lists them'),
                ('limit-resume', '@' * 256, BAD_REQUEST, 'no limit'),
                ('breaker-open', 'nosuch', UNKNOWN_MODEL, 'no target "nosuch"'),
                ('breaker-reset', '', UNKNOWN_MODEL, 'llmkit breakers lists them')):
            got = told(client, COMMAND, verb=verb, name=name)
            equal(got[0], status, f'{verb} {name}: {got}')
            check(word in got[1], f'{verb} {name}: {got}')
        equal(limits(host), before, 'nothing changed')
        equal(told(client, COMMAND, verb='limit-reset', name='provider openai requests'), (0, ''), 'a good one')
        equal(told(client, RESOLVE, user='u'), (0, ''), 'and RESOLVE')
        equal(set(limits(host)), {'provider openai requests', 'user u requests'}, 'what it made')
        got = told(client, RESOLVE, user='u' * 200)
        equal(got[0], BAD_REQUEST, got)
        check('too long for a limit' in got[1], got)
        client.close()


def test_while_draining_nothing_is_changed():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())], drain_timeout='1d',
                       limits=[{'provider': 'openai', 'concurrency': 3}])
        host.start()
        busy, client = Caller(host), wire.Client(host.socket)
        number = busy.send(SLOW, more={'stream': True})
        wait_for(lambda: in_use(host) == 1, what='in flight')
        host.daemon.terminate()
        wait_for(lambda: 'draining requests=1' in host.log_text(), what='the drain begins')
        for verb, name in (('reload', ''), ('breaker-open', 'openai'), ('frob', '')):
            status, message = told(client, COMMAND, verb=verb, name=name)
            equal(status, SHUTTING_DOWN, verb)
            check('start the next one' in message, message)
        client.send(wire.STATUS, 5)
        kind, got, body = client.read()
        equal((kind, got, json.loads(body['json'])['state']), (wire.STATUS_REPLY, 5, 'draining'), 'it says so')
        equal(breakers(host)['openai']['state'], 'closed', 'nothing was done')
        busy.client.send(wire.CANCEL, number)
        equal(busy.finish(number)['status'], CANCELLED, 'the last one ends')
        equal(host.daemon.wait(30), 0, 'and the daemon with it')
        client.close()
        busy.close()


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
