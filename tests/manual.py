#!/usr/bin/env python3
"""The manual pages name every long option of --help and no other, and every function of llmkit.h and no
other. manual.py LLMKIT LLMKITD; TAP."""
import glob
import os
import re
import subprocess
import sys

SOURCE = os.environ['PROJECT_SOURCE']
OPTION = r'--[a-z][a-z-]+'


def options_of_help(*command):
    text = subprocess.run([*command, '--help'], capture_output=True, text=True, timeout=20, check=True).stdout
    return set(re.findall(OPTION, text))


def options_of_page(name):
    with open(os.path.join(SOURCE, 'docs', 'man', name + '.scd'), encoding='utf-8') as file:
        return set(re.findall(OPTION, file.read()))


def functions_of_header():
    with open(os.path.join(SOURCE, 'libclient', 'llmkit.h'), encoding='utf-8') as file:
        text = re.sub(r'/\*.*?\*/', '', file.read(), flags=re.S)
    return set(re.findall(r'\b(llmkit_[a-z0-9_]+)\(', text))


def functions_of_pages():
    """As their synopses have them."""
    found = set()
    for path in glob.glob(os.path.join(SOURCE, 'docs', 'man', '*.3.scd')):
        with open(path, encoding='utf-8') as file:
            synopsis = file.read().split('# SYNOPSIS', 1)[1].split('# DESCRIPTION', 1)[0]
        found |= set(re.findall(r'\b(llmkit_[a-z0-9_]+)\(', synopsis))
    return found


def main():
    llmkit, llmkitd = sys.argv[1:]
    overview = subprocess.run([llmkit, '--help'], capture_output=True, text=True, timeout=20, check=True).stdout
    commands = re.findall(r'^  ([a-z]+) ', overview, re.M)
    programs = {
        'llmkit.1': options_of_help(llmkit).union(*(options_of_help(llmkit, c) for c in commands)),
        'llmkitd.8': options_of_help(llmkitd),
    }
    print(f'1..{len(programs) + 1}')
    bad = False
    for number, (page, known) in enumerate(programs.items(), 1):
        wrong = known ^ options_of_page(page)
        wrong |= {'no options at all'} if len(known) < 5 else set()
        for option in sorted(wrong):
            print(f'# {page}: {option} is in one of --help and the page only')
        print(f'{"not ok" if wrong else "ok"} {number} - {page}')
        bad |= bool(wrong)
    wrong = functions_of_header() ^ functions_of_pages()
    for function in sorted(wrong):
        print(f'# {function}() is in one of llmkit.h and the synopses only')
    print(f'{"not ok" if wrong else "ok"} {len(programs) + 1} - llmkit.h')
    return bad or bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
