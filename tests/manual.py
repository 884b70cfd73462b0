#!/usr/bin/env python3
"""The manual pages name every long option of --help and no other. manual.py LLMKIT LLMKITD; TAP."""
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


def main():
    llmkit, llmkitd = sys.argv[1:]
    overview = subprocess.run([llmkit, '--help'], capture_output=True, text=True, timeout=20, check=True).stdout
    commands = re.findall(r'^  ([a-z]+) ', overview, re.M)
    programs = {
        'llmkit.1': options_of_help(llmkit).union(*(options_of_help(llmkit, c) for c in commands)),
        'llmkitd.8': options_of_help(llmkitd),
    }
    print(f'1..{len(programs)}')
    bad = False
    for number, (page, known) in enumerate(programs.items(), 1):
        wrong = known ^ options_of_page(page)
        wrong |= {'no options at all'} if len(known) < 5 else set()
        for option in sorted(wrong):
            print(f'# {page}: {option} is in one of --help and the page only')
        print(f'{"not ok" if wrong else "ok"} {number} - {page}')
        bad |= bool(wrong)
    return bad


if __name__ == '__main__':
    sys.exit(main())
