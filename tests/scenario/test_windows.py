#!/usr/bin/env python3
"""Limits over a day and over a month: money that is spent by usage and price until the calendar turns;
and what providers' answers say of their limits, of these windows and of others."""
import calendar
import email.utils
import re
import threading
import time

from clients import (LIMITED, NEVER_FITS, NS, PROVIDER_LIMITED, Caller, Member, acted, ask, boottime_ns, each,
                     events, limit, limits)
from harness import Host
from tap import check, equal, main, wait_for

USD = 10**9
DAY_NS = 86400 * NS
MONEY = {'name': 'm', 'provider': 'openai', 'upstream': 'm?input_tokens=1000&output_tokens=500',
         'price': {'input': 2, 'output': 10}}
COST = 7_000_000  # nano-USD: 1000 * $2 / 1M + 500 * $10 / 1M


# ---- money ----

def first_of_next(window, now_s):
    """Unix time of the next midnight, or the next first of a month, UTC."""
    at = time.gmtime(now_s)
    if window == 'day':
        return calendar.timegm((at.tm_year, at.tm_mon, at.tm_mday + 1, 0, 0, 0))
    return calendar.timegm((at.tm_year + at.tm_mon // 12, at.tm_mon % 12 + 1, 1, 0, 0, 0))


def test_the_calendar_of_these_tests():
    dec_31 = calendar.timegm((2027, 12, 31, 23, 59, 59))
    equal((first_of_next('day', dec_31), first_of_next('month', dec_31)), (dec_31 + 1, dec_31 + 1))
    feb_28 = calendar.timegm((2028, 2, 28, 12, 0, 0))
    equal(first_of_next('day', feb_28), feb_28 + 43200)
    equal(time.gmtime(first_of_next('month', feb_28))[:5], (2028, 3, 1, 0, 0))


def keep_away_from_midnight():
    """What is spent and looked at in here is of one day."""
    left_s = first_of_next('day', time.time()) - time.time()
    if left_s < 60:
        time.sleep(left_s + 1)


def refused_until(host, window, label, used, burst, **options):
    """A refusal by that limit, which ends when the window does."""
    before_s = time.time()
    refused = ask(host, 'm', max_tokens=500, **options)
    after_s = time.time()
    equal((refused['status'], refused.get('limit')), (LIMITED, label), refused)
    said = re.fullmatch(rf'limit {label} is used up: (\d+) of (\d+) used, (\d+) asked for: '
                        r'retry in (\d+\.\d+) s', refused['message'])
    check(said, refused['message'])
    equal((int(said[1]), int(said[2])), (used, burst), refused['message'])
    # 500 tokens of the answer, and the few of "x".
    check(5_000_000 < int(said[3]) < 5_100_000, refused['message'])
    wait_s = refused['retry_after_ns'] / NS
    check(abs(float(said[4]) - wait_s) < 0.001, refused)
    ends_s = first_of_next(window, before_s)
    check(ends_s - after_s - 5 < wait_s < ends_s - before_s + 5, f'{wait_s} s is not until {ends_s}: {refused}')


def host_of_money(host, *rows, **more):
    fake = host.fake()
    host.configure(providers=[host.provider('openai', fake)], limits=list(rows),
                   models=[MONEY, {'name': 'free', 'provider': 'openai'}], **more)
    host.start()
    return fake


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


def test_money_of_a_month_lasts_until_the_first():
    keep_away_from_midnight()
    with Host() as host:
        fake = host_of_money(host, {'provider': 'openai', 'money': '0.02 USD/month'})
        label = 'provider openai money'
        for times in range(1, 4):
            equal(ask(host, 'm', max_tokens=500)['status'], 0, f'call {times}')
            row = limit(host, label)
            equal((row['owed'], row['held'], row['limit'], row['available']),
                  (times * COST, 0, USD // 50, max(USD // 50 - times * COST, 0)), f'after {times}')
        refused_until(host, 'month', label, 3 * COST, USD // 50)
        full_s, left_s = limit(host, label)['full_ns'] / NS, first_of_next('month', time.time()) - time.time()
        check(abs(full_s - left_s) < 60, f'back in {full_s} s, the month ends in {left_s}')
        check(re.search(rf'^{label} +\$0\.02/month +\$0\.02 +\$0\.02 ', host.tool('limits').stdout, re.M), 'text')
        equal(ask(host, 'free')['status'], 0, 'what has no price costs nothing')
        host.kill()
        host.start()
        equal(limit(host, label)['owed'], 3 * COST, 'the next daemon knows')
        refused_until(host, 'month', label, 3 * COST, USD // 50)
        equal(len(fake.arrivals()), 4, 'arrivals')
        acted(host, 'limits', 'reset', label)
        equal((limit(host, label)['owed'], ask(host, 'm', max_tokens=500)['status']), (0, 0), 'reset by hand')


def test_the_window_that_is_spent_refuses():
    keep_away_from_midnight()
    with Host() as host:
        fake = host_of_money(host, {'provider': 'openai', 'money': '0.02 USD/month'},
                             {'user': 'ann', 'money': '0.01 USD/day'},
                             templates={'per_user': {'money': '1 USD/day'}})
        equal(ask(host, 'm', max_tokens=500, user='ann')['status'], 0)
        refused_until(host, 'day', 'user ann money', COST, USD // 100, user='ann')
        equal(limit(host, 'provider openai money')['owed'], COST, 'a refusal costs nobody anything')
        for _ in range(2):
            equal(ask(host, 'm', max_tokens=500, user='ben')['status'], 0, 'another user')
        equal({name: row['owed'] for name, row in limits(host).items()},
              {'provider openai money': 3 * COST, 'user ann money': COST, 'user ben money': 2 * COST},
              'each its own')
        refused_until(host, 'month', 'provider openai money', 3 * COST, USD // 50, user='ben')
        never = ask(host, 'm', max_tokens=4000, user='ann')
        equal((never['status'], never['limit']), (NEVER_FITS, 'user ann money'), never)
        equal(len(fake.arrivals()), 3, 'arrivals')


def test_money_in_flight_is_held_by_daemon_and_library_alike():
    with Host() as host:
        host_of_money(host, {'provider': 'openai', 'money': '0.02 USD/month'})
        label = 'provider openai money'
        member = Member(host)
        member.good('scope', provider='openai')
        member.good('lease', slot=0, nanousd=19 * USD // 1000)
        row = limit(host, label)
        # Holds count in steps, never less than what was asked for.
        check(row['owed'] == 0 and 0 <= row['held'] - 19_000_000 < 19_000_000 / 100, row)
        refused = ask(host, 'm', max_tokens=500)
        equal((refused['status'], refused['limit'], refused.get('retry_after_ns', 0)), (LIMITED, label, 0),
              refused)
        check('retry when another request has ended' in refused['message'], refused['message'])
        equal(member.do('lease', slot=1, nanousd=21 * USD // 1000)['code'], 'LLMKIT_E_NEVER_FITS',
              'above the month')
        member.good('settle', slot=0, nanousd=4_000_000)
        row = limit(host, label)
        equal((row['owed'], row['held'], row['available']), (4_000_000, 0, 16_000_000), 'what was used counts')
        equal(ask(host, 'm', max_tokens=500)['status'], 0, 'and the rest is free')
        equal(limit(host, label)['owed'], 4_000_000 + COST, 'in one account')


# ---- what providers say of a day ----

def left(host):
    return {label: row['available'] for label, row in limits(host).items()}


def says(fake, *headers):
    fake.set_script('*: headers=' + '|'.join(headers) if headers else '')


def host_that_hears(host, *rows):
    fake = host.fake()
    host.configure(providers=[host.provider('openai', fake)], limits=list(rows),
                   models=[{'name': 'm', 'provider': 'openai'}, {'name': 'n', 'provider': 'openai'}])
    host.start()
    return fake


def test_what_is_left_of_a_day_lowers_the_models_day_alone():
    with Host() as host:
        fake = host_that_hears(host, {'model': 'm', 'requests': '1000/day', 'burst': 100},
                               {'provider': 'openai', 'requests': '60/h', 'burst': 50},
                               {'user': 'u', 'model': 'm', 'requests': '1000/day', 'burst': 100})
        says(fake, 'x-ratelimit-remaining-requests-day: 3')
        equal(ask(host, 'm', user='u')['status'], 0)
        now = left(host)
        equal(now, {'model m requests': 3, 'provider openai requests': 49, 'user+model u@m requests': 99},
              "a user's is not the provider's to know")
        says(fake, 'x-ratelimit-remaining-requests-day: 90')
        equal(ask(host, 'm')['status'], 0)
        equal(left(host)['model m requests'], 2, 'a late answer gives nothing back')
        says(fake)
        codes = [ask(host, 'm')['status'] for _ in range(4)]
        equal(codes, [0, 0, LIMITED, LIMITED], 'no more than the provider has')
        refused = ask(host, 'm')
        equal(refused['limit'], 'model m requests', refused)
        # One of a thousand a day is back every 86.4 s.
        check(0 < refused['retry_after_ns'] <= DAY_NS // 1000, refused)
        equal(ask(host, 'n')['status'], 0, 'the other model goes on')
        equal(len(fake.arrivals()), 5, 'arrivals')


def test_of_a_models_and_its_providers_day_only_the_models_falls():
    with Host() as host:
        fake = host_that_hears(host, {'model': 'm', 'requests': '1000/day', 'burst': 100},
                               {'provider': 'openai', 'requests': '1000/day', 'burst': 100})
        says(fake, 'x-ratelimit-remaining-requests-day: 3', 'x-ratelimit-remaining-requests-minute: 1')
        equal(ask(host, 'm')['status'], 0)
        equal(left(host), {'model m requests': 3, 'provider openai requests': 99}, 'there is no limit of a minute')
        equal(ask(host, 'n')['status'], 0)
        equal(left(host), {'model m requests': 3, 'provider openai requests': 3}, 'without a limit of its own')


def test_a_minutes_and_a_months_say_nothing_of_a_day():
    with Host() as host:
        fake = host_that_hears(host, {'model': 'm', 'requests': '1000/day', 'tokens': '100000/day',
                                      'burst': {'requests': 100, 'tokens': 10000}},
                               {'provider': 'openai', 'requests': '60/h', 'burst': 50})
        says(fake, 'x-ratelimit-remaining-requests-minute: 2', 'x-ratelimit-remaining-tokens-minute: 5',
             'x-ratelimit-remaining-tokens-month: 5')
        equal(ask(host, 'm')['status'], 0)
        now = left(host)
        equal((now['model m requests'], now['provider openai requests']), (99, 2), 'each its own window')
        check(now['model m tokens'] > 9000, now)
        says(fake, 'x-ratelimit-remaining-tokens-day: 500')
        equal(ask(host, 'm')['status'], 0)
        check(0 < left(host)['model m tokens'] <= 500, left(host))
        equal(left(host)['model m requests'], 98, 'tokens are no requests')


def test_the_library_hears_a_day_as_the_daemon_does():
    with Host() as host:
        host_that_hears(host, {'model': 'm', 'requests': '1000/day', 'burst': 100},
                        {'provider': 'openai', 'requests': '1000/day', 'burst': 100})
        member = Member(host)
        member.good('scope', provider='openai', model='m')
        member.good('acquire', n=1)
        member.good('feedback', status=200, header='x-ratelimit-remaining-requests-day:3')
        equal(left(host), {'model m requests': 3, 'provider openai requests': 99}, 'what is left')
        equal([ask(host, 'm')['status'] for _ in range(4)], [0, 0, 0, LIMITED], 'for requests through the daemon')


def test_the_limit_of_a_day_is_followed_by_the_models_day():
    with Host() as host:
        fake = host_that_hears(host, {'model': 'm', 'requests': '1000/day', 'burst': 100},
                               {'provider': 'openai', 'requests': '60/h', 'burst': 50})

        def rates():
            return {label: row['limit'] * DAY_NS // row['window_ns'] for label, row in limits(host).items()}

        equal(rates(), {'model m requests': 1000, 'provider openai requests': 60 * 24}, 'configured')
        says(fake, 'x-ratelimit-limit-requests-day: 48')
        for _ in range(3):
            equal(ask(host, 'm')['status'], 0)
        wait_for(lambda: rates()['model m requests'] == 48, what='followed down')
        equal(rates()['provider openai requests'], 60 * 24, 'that of an hour is another')
        equal([event['text'] for event in events(host, 'limit')], ['limit model m requests: now 48'], 'an event')


# ---- what providers say: pauses, and limits that are followed ----

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
        equal(ask(host, 'openai/fake')['status'], 0, 'and its target, too')
        fake.set_script('*: status=429; retry_after=300; times=1')
        equal(ask(host, 'openai/other')['status'], PROVIDER_LIMITED)
        acted(host, 'limits', 'resume', 'provider openai requests')
        acted(host, 'breakers', 'reset', 'openai/other')
        equal(ask(host, 'openai/other')['status'], 0, 'reset by its own name')


def test_a_pause_without_a_limit_can_be_ended():
    with Host() as host:
        fake = host.fake(script='*: status=429; retry_after=300; times=1')
        host.configure(providers=[host.provider('openai', fake)])
        host.start()
        equal(ask(host, 'openai/fake')['status'], PROVIDER_LIMITED)
        refused = ask(host, 'openai/fake')
        equal(refused['status'], LIMITED, refused)
        acted(host, 'breakers', 'reset', 'openai/fake')
        equal(ask(host, 'openai/fake')['status'], 0, 'over')
        equal(ask(host, 'openai/fake')['status'], 0, 'and requests go again')


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


if __name__ == '__main__':
    main()
