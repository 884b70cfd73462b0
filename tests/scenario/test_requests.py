#!/usr/bin/env python3
"""Requests through the daemon to the fake provider: what users do, and what providers do to them."""
import json
import signal
import subprocess

from harness import KEY, Host, clean_environment, last_of, text_of
from tap import check, equal, main, wait_for

MODELS = (('openai', 'openai/'), ('anthropic', 'anthropic/'))


def each_format(tls=False, **options):
    for family, prefix in MODELS:
        with Host() as host:
            fake = host.fake(**options)
            host.configure(providers=[host.provider(family, fake, tls=tls)])
            host.start()
            yield host, fake, prefix


def expect_error(events, code):
    equal(last_of(events).get('code', last_of(events)['type']), 'LLMKIT_E_' + code, 'last event')


def test_streams_over_tls_in_both_formats():
    for host, fake, prefix in each_format(tls=True):
        events = host.chat('hello', '--model', prefix + 'fake?chunks=20')
        equal([e['type'] for e in events][0], 'start')
        equal(last_of(events)['type'], 'end')
        equal(last_of(events)['finish_reason'], 'stop')
        check(len([e for e in events if e['type'] == 'text']) >= 20, 'text came in pieces')
        usage = [e for e in events if e['type'] == 'usage'][0]
        check(usage['input'] > 0 and usage['output'] > 0, usage)
        equal(len(fake.arrivals()), 1, 'one call')


def test_whole_answers_have_the_same_text_as_streams():
    for host, _, prefix in each_format():
        stream = host.chat('hello', '--model', prefix + 'fake?chunks=12')
        whole = host.chat('hello', '--no-stream', '--model', prefix + 'fake?chunks=12')
        equal(text_of(whole), text_of(stream), 'text')
        equal(last_of(whole)['finish_reason'], last_of(stream)['finish_reason'])


def test_reasoning_and_tool_calls_are_normalised():
    for host, _, prefix in each_format():
        events = host.chat('hello', '--model', prefix + 'fake?reasoning=3&tools=2')
        check(any(e['type'] == 'reasoning' for e in events), 'reasoning came')
        calls = {}
        for e in events:
            if e['type'] == 'tool_call':
                call = calls.setdefault(e['index'], {'name': '', 'arguments': ''})
                call['name'] += e['name']
                call['arguments'] += e['arguments']
        equal(len(calls), 2, 'tool calls')
        for call in calls.values():
            check(call['name'], 'a tool has a name')
            json.loads(call['arguments'])
        equal(last_of(events)['finish_reason'], 'tool_calls')


def test_unknown_members_reach_the_provider():
    with Host() as host:
        fake = host.fake(log_bodies=True)
        host.configure(providers=[host.provider('openai', fake)])
        host.start()
        body = {'messages': [{'role': 'user', 'content': 'hi'}], 'stream': True,
                'brand_new_member': {'nested': [1, 2.5, 12345678901234567890]}}
        host.tool('chat', '--request', '--model', 'openai/gpt-x', stdin=json.dumps(body))
        got = fake.arrivals()[0]['body']
        equal(got['brand_new_member'], body['brand_new_member'], 'member')
        equal(got['model'], 'gpt-x', 'model')


FAULTS = (
    # script of the fake provider, what the client is told
    ('status=500', 'PROVIDER_ERROR'),
    ('status=503', 'PROVIDER_OVERLOADED'),
    ('status=529', 'PROVIDER_OVERLOADED'),
    ('status=401', 'PROVIDER_AUTH'),
    ('status=404', 'PROVIDER_NOT_FOUND'),
    ('status=400', 'PROVIDER_REJECTED'),
    ('status=429&retry_after=7', 'PROVIDER_LIMITED'),
    ('redirect=http://127.0.0.1:9/', 'REDIRECT'),
    ('cut_bytes=300', 'RESET'),
    ('cut_bytes=300&cut=rst', 'RESET'),
    ('no_terminal=1', 'TRUNCATED'),
    ('malformed=json', 'MALFORMED'),
    ('malformed=utf8', 'MALFORMED'),
    ('malformed=nul', 'MALFORMED'),
    ('inband_error=0', None),
    ('inband_error=3', None),
    ('length=wrong_long', 'RESET'),
    ('gzip=1', 'MALFORMED'),
)


def test_a_fault_never_looks_like_an_answer():
    for host, _, prefix in each_format():
        for script, code in FAULTS:
            events = host.chat('hello', '--model', f'{prefix}fake?chunks=8&{script}')
            equal(last_of(events)['type'], 'error', f'{prefix} {script}: last event')
            if code:
                equal(last_of(events)['code'], 'LLMKIT_E_' + code, f'{prefix} {script}: code')
            check(last_of(events)['message'], 'a message')
        good = host.chat('hello', '--model', prefix + 'fake')
        equal(last_of(good)['type'], 'end', 'the daemon is well after all that')


def test_retry_after_of_the_provider_reaches_the_client():
    for host, _, prefix in each_format():
        error = last_of(host.chat('hello', '--model', prefix + 'fake?status=429&retry_after=7'))
        equal(error['retry_after_ns'], 7_000_000_000, 'retry after')
        equal(error['http_status'], 429, 'status')
        check(error['retryable'], 'retryable')


def test_stalled_and_silent_providers_time_out_with_a_class():
    for family, prefix in MODELS:
        with Host() as host:
            fake = host.fake()
            host.configure(providers=[host.provider(
                family, fake, timeouts={'first_byte': '300ms', 'stall': '300ms'})])
            host.start()
            expect_error(host.chat('x', '--model', prefix + 'fake?first_ms=60000'), 'TIMEOUT')
            events = host.chat('x', '--model', prefix + 'fake?chunks=9&stall_after=3')
            expect_error(events, 'STALLED')
            check(text_of(events), 'what came before the stall was delivered')
            expect_error(host.chat('x', '--timeout', '0.3', '--model', prefix +
                                   'fake?chunks=2000&delay_ms=20'), 'DEADLINE')


def test_healthy_oddities_are_no_faults():
    for host, _, prefix in each_format():
        plain = text_of(host.chat('hello', '--model', prefix + 'fake?chunks=9'))
        for script in ('comments=3', 'crlf=1', 'split=1', 'split=7', 'continue100=2', 'http=close',
                       'chunked_trailers=1', 'junk_after=1', 'stale=1', 'close_on_reuse=1',
                       'slow_headers_ms=1'):
            for _ in range(2):  # twice: what it does to the kept connection shows in the second
                events = host.chat('hello', '--model', f'{prefix}fake?chunks=9&{script}')
                equal(last_of(events)['type'], 'end', f'{prefix} {script}')
                equal(text_of(events), plain, f'{prefix} {script}: text')


def test_tls_is_verified():
    for cert in ('expired', 'wronghost', 'selfsigned'):
        with Host() as host:
            fake = host.fake(cert=cert)
            host.configure(providers=[host.provider('openai', fake, tls=True)])
            host.start()
            error = last_of(host.chat('x', '--model', 'openai/fake'))
            equal(error.get('code'), 'LLMKIT_E_TLS', cert)
            check(KEY not in json.dumps(error), 'no key in the error')
            equal(len(fake.arrivals()), 0, f'{cert}: nothing was sent')


def test_a_route_falls_back_before_the_first_byte():
    with Host() as host:
        fake = host.fake()
        down = host.provider('openai', fake, name='down', base_url='http://localhost:9/v1')
        host.configure(
            providers=[down, host.provider('openai', fake), host.provider('anthropic', fake)],
            limits=[{'provider': 'anthropic', 'requests': '1/day', 'burst': 1}],
            routes=[{'name': 'fast', 'targets': ['down/m', 'openai/fake?status=500', 'anthropic/fake']},
                    {'name': 'cut', 'targets': ['openai/fake?chunks=9&cut_bytes=900', 'openai/fake']}])
        host.start()
        events = host.chat('x', '--route', 'fast')
        equal(last_of(events)['type'], 'end', 'third target')
        equal(events[0]['provider'], 'anthropic', 'provider')
        equal(host.dump()['counters']['fallbacks'], 2, 'fallbacks')
        expect_error(host.chat('x', '--route', 'fast'), 'LIMITED')
        cut = host.chat('x', '--route', 'cut')
        equal(last_of(cut)['type'], 'error', 'no second answer after the first one began')


def test_limits_refuse_with_the_exact_wait_and_the_name():
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)],
                       limits=[{'user': 'alice', 'requests': '2/h', 'burst': 2}])
        host.start()
        for _ in range(2):
            equal(last_of(host.chat('x', '-u', 'alice', '-m', 'openai/fake'))['type'], 'end')
        error = last_of(host.chat('x', '-u', 'alice', '-m', 'openai/fake'))
        equal(error['code'], 'LLMKIT_E_LIMITED', 'code')
        equal(error['limit'], 'user alice requests', 'limit')
        check('2 of 2 used, 1 asked for' in error['message'], error['message'])
        check(1_700e9 < error['retry_after_ns'] <= 1_800e9, error)
        equal(last_of(host.chat('x', '-u', 'bob', '-m', 'openai/fake'))['type'], 'end', 'others')
        equal(len(fake.arrivals()), 3, 'the refused one was not sent')


def test_ctrl_c_cancels_at_the_provider():
    for host, fake, prefix in each_format():
        with subprocess.Popen(
                host.tool_command('chat', '--model', prefix + 'fake?chunks=100000&delay_ms=20', 'hi'),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=clean_environment(LLMKIT_SOCKET=host.socket)) as chat:
            check(chat.stdout.read(1), 'the answer begins')
            chat.send_signal(signal.SIGINT)
            chat.communicate(timeout=20)
            equal(chat.returncode, 130, 'exit code')
        wait_for(lambda: any(e['outcome'] == 'aborted_by_client' for e in fake.ends()),
                 what='the provider sees the end')
        equal(host.dump()['counters']['requests_cancelled'], 1, 'counted')


def test_a_killed_client_is_cancelled_at_the_provider():
    for host, fake, prefix in each_format():
        with subprocess.Popen(
                host.tool_command('chat', '--model', prefix + 'fake?chunks=100000&delay_ms=20', 'hi'),
                stdout=subprocess.PIPE, env=clean_environment(LLMKIT_SOCKET=host.socket)) as chat:
            check(chat.stdout.read(1), 'the answer begins')
            chat.kill()
        wait_for(lambda: any(e['outcome'] == 'aborted_by_client' for e in fake.ends()),
                 what='the provider sees the end')


MISTAKES = (
    (('--model', 'nosuch/model'), 'UNKNOWN_MODEL', 'openai'),
    (('--model', 'gpt'), 'UNKNOWN_MODEL', 'PROVIDER/MODEL'),
    (('--route', 'nosuch'), 'UNKNOWN_MODEL', 'configured routes'),
    (('--model', 'keyless/m'), 'NO_KEY', 'GROQ_API_KEY'),
)


def test_mistakes_get_an_answer_that_helps():
    with Host() as host:
        fake = host.fake()
        keyless = host.provider('groq', fake, name='keyless')
        del keyless['key']
        host.configure(providers=[host.provider('openai', fake), keyless])
        host.start()
        for arguments, code, hint in MISTAKES:
            error = last_of(host.chat('x', *arguments))
            equal(error['code'], 'LLMKIT_E_' + code, str(arguments))
            check(hint in error['message'], f'{arguments}: {error["message"]}')
        for body in ('{"messages": []}', '{"messages": 7}', '{}', '{"messages":[{"role":"user"}], "stream":3}'):
            error = last_of([json.loads(line) for line in host.tool(
                'chat', '--json', '--request', '-m', 'openai/x', stdin=body).stdout.splitlines()])
            equal(error['code'], 'LLMKIT_E_BAD_REQUEST', body)
        out = host.tool('chat', '--request', '-m', 'openai/x', stdin='{"messages": [')
        equal(out.returncode, 1, 'broken JSON')
        check('JSON' in out.stderr, out.stderr)
        equal(len(fake.arrivals()), 0, 'nothing was sent')


if __name__ == '__main__':
    main()
