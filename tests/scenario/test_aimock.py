#!/usr/bin/env python3
"""The daemon against a fake provider that nobody here wrote: npm @copilotkit/aimock."""
import contextlib
import fcntl
import os
import subprocess

import aimock
from harness import BUILD, SOURCE, Host, last_of, text_of
from tap import check, equal, main

FAMILIES = ('openai', 'anthropic')
refused = []  # why it could not be installed: asked once, not once per test


def installed():
    """Installed on first use, into the build folder. Without it these tests fail: they are not
    to be skipped unnoticed."""
    if aimock.installed():
        return aimock.installed()
    check(not refused, ''.join(refused))
    folder = os.environ.get('AIMOCK', os.path.join(BUILD, 'aimock'))
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, '.lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        out = subprocess.run([os.path.join(SOURCE, 'tests', 'scenario', 'aimock', 'install.sh'), folder],
                             capture_output=True, text=True, timeout=240, check=False)
    if out.returncode != 0 or not aimock.installed():
        refused.append('aimock cannot be installed (it needs npm and the registry, or $AIMOCK with a '
                       'folder where tests/scenario/aimock/install.sh ran): ' + out.stdout + out.stderr)
    check(not refused, ''.join(refused))
    return aimock.installed()


@contextlib.contextmanager
def each(family):
    with aimock.Aimock(installed()) as provider, Host() as host:
        url = provider.url + ('/v1' if family == 'openai' else '')
        host.configure(providers=[{'name': family, 'family': family, 'base_url': url,
                                   'key': {'file': host.key_file}}])
        host.start()
        yield host, provider, family + '/any-model'


def check_requests(provider, family, count):
    journal = provider.journal()
    path = '/v1/chat/completions' if family == 'openai' else '/v1/messages'
    equal([entry['path'] for entry in journal], [path] * count, 'requests that reached it')


def test_text_streamed_and_whole():
    for family in FAMILIES:
        with each(family) as (host, provider, model):
            events = host.chat('count to five', '-m', model)
            equal(last_of(events)['type'], 'end', f'{family}: {events}')
            equal(last_of(events)['finish_reason'], 'stop', family)
            equal(text_of(events), aimock.TEXT, family)
            check(len([e for e in events if e['type'] == 'text']) > 3, 'in pieces')
            whole = host.chat('count to five', '--no-stream', '-m', model)
            equal(text_of(whole), aimock.TEXT, f'{family}, whole')
            usage = [e for e in whole if e['type'] == 'usage'][0]
            equal((usage['input'], usage['output']), (11, 9), f'{family}: usage')
            check_requests(provider, family, 2)


def test_tool_calls():
    for family in FAMILIES:
        with each(family) as (host, provider, model):
            for arguments in ((), ('--no-stream',)):
                events = host.chat('weather in Paris', '-m', model, *arguments)
                equal(last_of(events)['type'], 'end', f'{family} {events}')
                equal(last_of(events)['finish_reason'], 'tool_calls', family)
                calls = [e for e in events if e['type'] == 'tool_call']
                equal(''.join(c['name'] for c in calls), 'get_weather', family)
                check(calls[0]['id'], 'it has an id')
                equal(''.join(c['arguments'] for c in calls).replace(' ', ''), '{"location":"Paris"}',
                      family)
            check_requests(provider, family, 2)


def test_a_429_carries_its_wait_and_is_not_repeated():
    for family in FAMILIES:
        with each(family) as (host, provider, model):
            error = last_of(host.chat('too fast', '-m', model))
            equal(error['code'], 'LLMKIT_E_PROVIDER_LIMITED', family)
            equal((error['http_status'], error['retry_after_ns']), (429, 2_000_000_000), family)
            check('Slow down' in error['message'] and error['retryable'], error)
            check_requests(provider, family, 1)


def test_a_cut_answer_is_an_error_after_what_came():
    for family in FAMILIES:
        with each(family) as (host, provider, model):
            events = host.chat('cut me off', '-m', model)
            check(last_of(events).get('code') in ('LLMKIT_E_RESET', 'LLMKIT_E_TRUNCATED'), events)
            text = text_of(events)
            check(text and 'This answer is cut'.startswith(text[:10]), text)
            equal(last_of(events)['received'], len(text), 'received')
            check_requests(provider, family, 1)


def test_what_it_does_not_know_is_not_found():
    for family in FAMILIES:
        with each(family) as (host, provider, model):
            error = last_of(host.chat('something else', '-m', model))
            equal((error['type'], error['http_status']), ('error', 404), family)
            check_requests(provider, family, 1)


if __name__ == '__main__':
    main()
