#!/usr/bin/env python3
"""Adds up test results: count.py FAILED_STAGES FILE.xml ...; the last line is the total. Beside
FILE.xml may lie FILE.failed: the runner itself said so, be it a crash after the last case."""
import os
import sys
import xml.etree.ElementTree

passed = failed = skipped = 0
for path in filter(os.path.exists, sys.argv[2:]):
    before = failed
    for suite in xml.etree.ElementTree.parse(path).getroot().iter('testsuite'):
        bad = int(suite.get('failures', 0)) + int(suite.get('errors', 0))
        out = int(suite.get('skipped', 0))
        passed += int(suite.get('tests', 0)) - bad - out
        failed += bad
        skipped += out
        if bad:
            print(suite.findtext('system-out', '')[-8000:])
        for case in suite.iter('testcase'):
            if case.find('failure') is not None or case.find('error') is not None:
                print('failed:', suite.get('name'), case.get('name'))
    if failed == before and os.path.exists(path[:-4] + '.failed'):
        print('failed: a program of', os.path.basename(path)[:-4], 'outside its cases: crash, leak or timeout')
        failed += 1
if sys.argv[1] != '0':
    print('failed: a build')
    failed += 1
print(f'{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''))
sys.exit(1 if failed or not passed else 0)
