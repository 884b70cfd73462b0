#!/usr/bin/env python3
"""The README's first command, as a user runs it: shown to the end, interrupted, and kept."""
import os
import re
import signal
import subprocess

from harness import SOURCE
from tap import check, equal, main, wait_for

COMMAND = os.path.join(SOURCE, 'tools', 'quickstart')


def session_processes(session):
    """Pids of a session, zombies left out."""
    out = []
    for name in os.listdir('/proc'):
        try:
            with open(f'/proc/{name}/stat', encoding='utf-8') as file:
                fields = file.read().rsplit(')', 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[3]) == session and fields[0] != 'Z':
            out.append(int(name))
    return out


def start(*arguments):
    return subprocess.Popen([COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def folder_of(text):
    return re.search(r'llmkitd, in (\S+)', text)[1]


def test_shows_the_main_job_and_leaves_nothing():
    run = start()
    text, _ = run.communicate(timeout=600)
    equal(run.returncode, 0, text[-2000:])
    equal(text.count('A rate budget is a promise'), 2, 'two streamed answers')
    check(re.search(r'exact bound: 20 \+ 50/s \* [\d.]+ s = [\d.]+: kept', text), 'the bound is kept')
    admitted = int(re.search(r'all together: (\d+) admitted', text)[1])
    check(0.99 * (20 + 50 * 4) <= admitted, f'{admitted} of 220 admitted')
    rows = re.findall(r'worker \d+ \(pid \d+\): (\d+) admitted', text)
    equal((len(rows), sum(map(int, rows))), (4, admitted), 'workers add up')
    check(re.search(r'user +workers +requests +50 +1\.000s +20 ', text), 'the limit is in the dump')
    equal(session_processes(run.pid), [], 'processes left')
    check(not os.path.exists(folder_of(text)), 'folder left')


def test_interrupted_it_leaves_nothing():
    for number in (signal.SIGINT, signal.SIGTERM):
        run = start()
        text = ''
        while '== 4.' not in text:
            line = run.stdout.readline()
            check(line, 'ended early: ' + text)
            text += line
        os.killpg(run.pid, number)
        run.communicate(timeout=60)
        equal(run.returncode, 128 + number, 'exit code')
        wait_for(lambda: not session_processes(run.pid), what='no process is left')
        check(not os.path.exists(folder_of(text)), 'folder left')


def test_kept_it_goes_on_and_says_how_to_talk_to_it():
    with open(os.devnull, encoding='utf-8'):
        run = start('--keep')
    text = ''
    while 'kill ' not in text:
        line = run.stdout.readline()
        check(line, 'ended early: ' + text)
        text += line
    equal(run.wait(60), 0, 'exit code')
    commands = [line.strip() for line in text.splitlines() if line.startswith('    ')][-4:]
    try:
        out = subprocess.run(['sh', '-c', '; '.join(commands[:3])], capture_output=True, text=True,
                             timeout=60, check=False)
        check('A rate budget' in out.stdout and 'providers[0].name' in out.stdout, out)
    finally:
        subprocess.run(['sh', '-c', commands[3]], timeout=60, check=True)
    wait_for(lambda: not session_processes(run.pid), what='the printed command stops it')


if __name__ == '__main__':
    main()
