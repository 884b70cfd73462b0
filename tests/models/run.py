"""Checks the Promela models with spin, exhaustively, as TAP: the protocol has no error, and each broken
variant of it has one. Two at a time. LLMKIT_LONG=1 adds wider bounds; an argument selects by
name. KEEP=folder keeps what spin made, and prints how to replay an error."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY_MB = 900
LONG_MEMORY_MB = 8000
SECONDS = 600
LONG_SECONDS = 3000

# model, what is claimed or broken, definitions
RIGHT = [
    ('hierarchy', 'all or nothing, three processes dying anywhere', ''),
    ('hierarchy', 'give-back by the elapsed rule, while time passes', 'TICKS=3 ROUNDS=2'),
    ('held', 'E, then S, then E by its tag, then S again', ''),
    ('held', 'the tag alone is enough', 'NO_RECHECK'),
    ('held', 'the second look alone is enough', 'S_FIRST NO_TAG'),
    ('hold', 'a process and two totals, sequences wrap', 'WRAP=2 MOVES0=3 MOVES=1 DEATHS=1'),
    ('hold', 'two processes, sequences wrap', 'WRAP=2 MOVES0=4 TOTALS=1 DEATHS=1'),
    ('hold', 'two processes and their reapers die', 'TOTALS=1 DEATHS=3'),
    ('hold', 'three processes', 'HOLDS=3 MOVES=1 TOTALS=1 DEATHS=1'),
    ('hold', 'an audit mends what nobody has', 'TOTALS=1 DEATHS=1 AUDITS=1 GARBAGE=1'),
    ('breaker', 'three callers, one probe', ''),
    ('breaker', 'two callers, several eras', 'PROCESSES=2 ROUNDS=2 LEASES=2'),
    ('lease', 'slots by owner, rows reused', ''),
    ('lease', 'a dead owner reaped after its row went on', 'REAP_LATE'),
]
BROKEN = [
    ('hierarchy', 'commits without looking', 'NO_CHECK'),
    ('hierarchy', 'gives back all that it cost', 'NAIVE TICKS=3 ROUNDS=2'),
    ('held', 'settles E before S', 'SWAPPED'),
    ('held', 'reads S before E and looks no more', 'S_FIRST NO_RECHECK'),
    ('held', 'no tag and no second look', 'NO_TAG NO_RECHECK'),
    ('hold', 'overwrites without acknowledging', 'NO_ACKNOWLEDGE TOTALS=1 DEATHS=1'),
    ('hold', 'acknowledges without reading the total again', 'NO_VERIFY MOVES0=4 TOTALS=1 DEATHS=1'),
    ('hold', 'uses the number that the total has', 'NO_SKIP WRAP=2 MOVES0=3 MOVES=1 DEATHS=1'),
    ('hold', 'stores the entry before the total', 'ENTRY_FIRST TOTALS=1 DEATHS=1'),
    ('hold', 'the reaper does not see that it was done', 'NO_DONE TOTALS=1 DEATHS=1'),
    ('hold', 'the reaper goes by an op read before the total', 'STALE_OP TOTALS=1 DEATHS=1'),
    ('hold', 'the audit reads entries before ops', 'AUDIT_ENTRY_FIRST TOTALS=1 DEATHS=1 AUDITS=1 GARBAGE=1'),
    ('hold', 'the audit names another writer',
     'AUDIT_WRITES WRAP=2 TOTALS=1 DEATHS=1 AUDITS=1 GARBAGE=1'),
    ('hold', 'a whole wrap while one is stopped (the assumption)',
     'SHORT_CAS WRAP=2 MOVES0=5 MOVES=1 TOTALS=1 DEATHS=1'),
    ('breaker', 'tickets without generation', 'NO_GENERATION'),
    ('breaker', 'counts probes when their results come', 'COUNT_ON_RESULT'),
    ('breaker', 'takes a ticket of a newer generation for free', 'TAKE_NEWER'),
    ('breaker', 'sends without a second look at the state', 'NO_VERIFY'),
    ('breaker', 'no lease', 'NO_LEASE'),
    ('breaker', 'tickets of the dead stay', 'NO_REAP'),
    ('lease', 'owner without generation', 'NO_GENERATION'),
    ('lease', 'the sweep reads the row before the slot', 'ROW_FIRST'),
]
LONG = [
    ('hierarchy', 'more rounds', 'ROUNDS=3'),
    ('held', 'four processes', 'PROCESSES=4 ROUNDS=1'),
    ('hold', 'two processes and two totals', 'WRAP=2 MOVES0=4 DEATHS=1'),
    ('hold', 'three processes, more moves', 'HOLDS=3 MOVES=1 MOVES0=2 TOTALS=1 DEATHS=1'),
    ('breaker', 'three callers, two probes', 'PROBES=2'),
    ('lease', 'two leases a process', 'ROUNDS=2'),
]


class Wrong(Exception):
    pass


def command(words, folder, seconds):
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=seconds, check=False)
    return done.returncode, done.stdout


def explore(model, definitions, folder, long):
    """The number of errors and what the verifier says."""
    flags = ['-D' + word for word in definitions.split()]
    code, text = command(['spin', '-a', *flags, os.path.join(HERE, model + '.pml')], folder, SECONDS)
    if code != 0 or not os.path.exists(os.path.join(folder, 'pan.c')):
        raise Wrong(text)
    code, text = command(['gcc', '-O1', '-w', '-DSAFETY', '-DCOLLAPSE', '-DNOCLAIM',
                          f'-DMEMLIM={LONG_MEMORY_MB if long else MEMORY_MB}', '-o', 'pan', 'pan.c'],
                         folder, SECONDS)
    if code != 0:
        raise Wrong(text)
    code, text = command(['./pan', '-m100000', '-w22'], folder, LONG_SECONDS if long else SECONDS)
    errors = re.search(r'errors: (\d+)', text)
    whole = 'Search not completed' not in text and 'too small' not in text
    if not errors or (errors[1] == '0' and not whole):
        raise Wrong(text)
    return int(errors[1]), text


def judge(job):
    """None when the verifier says what it should; the states seen."""
    model, _, definitions, broken, long = job
    folder = tempfile.mkdtemp(dir=os.environ.get('KEEP'))
    try:
        errors, text = explore(model, definitions, folder, long)
        states = int(float(re.search(r'(\S+) states, stored', text)[1]))
        if broken and (errors == 0 or 'assertion violated' not in text):
            return 'spin finds no error in it\n' + text, states
        if not broken and errors:
            return text, states
        return None, states
    except (Wrong, subprocess.TimeoutExpired) as why:
        return str(why), 0
    finally:
        if 'KEEP' in os.environ:
            print(f'# {model} {definitions}: cd {folder}; '
                  f'./pan -r -C {model}.pml.trail', flush=True)
        else:
            shutil.rmtree(folder)


def main():
    if not shutil.which('spin') or not shutil.which('gcc'):
        print('1..0 # SKIP spin and gcc are needed')
        return 0
    jobs = [(*row, False, False) for row in RIGHT] + [(*row, True, False) for row in BROKEN]
    if os.environ.get('LLMKIT_LONG'):
        jobs += [(*row, False, True) for row in LONG]
    jobs = [job for job in jobs if all(word in f'{job[0]} {job[1]} {job[2]}' for word in sys.argv[1:])]
    print(f'1..{len(jobs)}', flush=True)
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number, (job, (problem, states)) in enumerate(zip(jobs, pool.map(judge, jobs)), 1):
            for line in (problem or '').splitlines():
                print('#', line)
            bad += problem is not None
            what = 'broken, and an error is found' if job[3] else 'no error'
            print(f'{"not ok" if problem else "ok"} {number} - {job[0]}: {job[1]}: {what}, '
                  f'{states} states', flush=True)
    return bad != 0


if __name__ == '__main__':
    sys.exit(main())
