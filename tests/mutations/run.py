#!/usr/bin/env python3
"""Builds each mutation of broken.py in a copy of the tree and shows that the tests catch it. Prints TAP.

    run.py [NAME...]    those whose name contains one of NAME; all by default

A mutation whose text is not found exactly once, or that does not build, fails."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from broken import MUTATIONS  # noqa: E402

SOURCE = os.environ.get('PROJECT_SOURCE') or os.path.abspath(
    os.path.join(os.path.dirname(__file__), '..', '..'))
LIMIT_S = 600  # guards against hanging


def ignore(folder, names):
    """Build folders and what is not source."""
    if os.path.abspath(folder) == SOURCE:
        return [n for n in names if n.startswith(('build', '.git')) or n == 'shared']
    return [n for n in names if n == '__pycache__']


def comment(text):
    for line in text.splitlines()[-15:]:
        print('#', line)


def build(folder, targets):
    made = subprocess.run(['ninja', '-C', os.path.join(folder, 'build'), *sorted(targets)],
                          capture_output=True, text=True)
    if made.returncode != 0:
        comment(made.stdout)
    return made.returncode == 0


def fails(folder, program):
    """What the program says when it fails; None: it does not."""
    try:
        done = subprocess.run([os.path.join(folder, 'build', program[0]), *program[1:]],
                              capture_output=True, text=True, errors='replace', timeout=LIMIT_S,
                              env={**os.environ, 'CMOCKA_MESSAGE_OUTPUT': 'TAP',
                                   'PROJECT_SOURCE': os.path.join(folder, 'source')})
    except subprocess.TimeoutExpired:
        return 'it hangs'
    if done.returncode == 0:
        return None
    said = [line for line in done.stdout.splitlines() if line.startswith('not ok')]
    return said[0] if said else f'exit status {done.returncode}'


def edited(source, edits):
    """The files as they were and as they are to be; None: a text is not there exactly once."""
    before, after = {}, {}
    for path, text, replacement in edits:
        if path not in before:
            with open(os.path.join(source, path), encoding='utf-8') as file:
                before[path] = after[path] = file.read()
        found = before[path].count(text)
        if found != 1:
            print(f'# {path}: found {found} times, not once: {text!r}')
            return None
        after[path] = after[path].replace(text, replacement)
    return before, after


def write(source, files):
    for path, text in files.items():
        with open(os.path.join(source, path), 'w', encoding='utf-8') as file:
            file.write(text)


def caught(folder, edits, programs):
    source = os.path.join(folder, 'source')
    files = edited(source, edits)
    if not files:
        return False
    write(source, files[1])
    try:
        for program in programs:
            if not build(folder, [program[0]]):
                print('# it does not build')
                return False
            said = fails(folder, program)
            if said:
                print(f'# {os.path.basename(program[0])}: {said}')
                return True
    finally:
        write(source, files[0])
    return False


def sound(folder, mutations):
    """All programs pass as long as nothing is broken."""
    programs = sorted({program for _, _, programs in mutations for program in programs})
    if not build(folder, {program[0] for program in programs}):
        return False
    for program in programs:
        said = fails(folder, program)
        if said:
            print(f'# {program[0]} fails unmutated: {said}')
            return False
    return True


def main():
    chosen = [m for m in MUTATIONS if len(sys.argv) < 2 or any(a in m[0] for a in sys.argv[1:])]
    print(f'1..{len(chosen) + 1}', flush=True)
    bad = 0
    with tempfile.TemporaryDirectory(prefix='mutations-') as folder:
        shutil.copytree(SOURCE, os.path.join(folder, 'source'), ignore=ignore)
        made = subprocess.run(['meson', 'setup', '-Dbench=false', '-Dwerror=false',
                               os.path.join(folder, 'build'), os.path.join(folder, 'source')],
                              capture_output=True, text=True)
        good = made.returncode == 0 and sound(folder, chosen)
        if made.returncode != 0:
            comment(made.stdout)
        print(f'{"ok" if good else "not ok"} 1 - unmutated, all programs pass', flush=True)
        bad += not good
        for number, (name, edits, programs) in enumerate(chosen, 2):
            good = caught(folder, edits, programs)
            print(f'{"ok" if good else "not ok"} {number} - {name}', flush=True)
            bad += not good
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
