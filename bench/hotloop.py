#!/usr/bin/env python3
"""Prints the body of the hot loop of a function in AArch64 assembly: of its innermost loops the one with the most fmla.

usage: hotloop.py FILE.s FUNCTION
"""
import re
import sys

LABEL = re.compile(r"^([.\w$]+):")
BRANCH = re.compile(r"^\s+(?:b\.?[a-z]*|cbn?z|tbn?z)\s+(?:.*,\s*)?([.\w$]+)\s*$")


def body(path, function):
    """The function's lines, without directives and comments."""
    lines, inside = [], False
    with open(path, encoding="ascii") as file:
        for line in file:
            line = re.split(r"//|;", line.rstrip())[0].rstrip()
            label = LABEL.match(line)
            if label and re.fullmatch(rf"{re.escape(function)}(\.(constprop|isra|part)\.\d+)*", label[1]):
                inside = True
            elif inside and re.match(rf"\s+\.size\s+{re.escape(function)}\b", line):
                break
            elif inside and line and (label or not line.lstrip().startswith(".")):
                lines.append(line)
    return lines


def innermost_loops(lines):
    """Ranges from a label to a branch back to it, with no other such range inside."""
    at = {LABEL.match(line)[1]: i for i, line in enumerate(lines) if LABEL.match(line)}
    loops = []
    for i, line in enumerate(lines):
        branch = BRANCH.match(line)
        if branch and at.get(branch[1], i) < i:
            loops.append((at[branch[1]], i))
    return [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip().splitlines()[-1])
    path, function = sys.argv[1:]
    lines = body(path, function)
    loops = innermost_loops(lines)
    if not loops:
        sys.exit(f"hotloop.py: no loop in {function} of {path}")
    first, last = max(loops, key=lambda loop: sum("fmla" in line for line in lines[loop[0] : loop[1]]))
    print("\n".join(line for line in lines[first : last + 1] if not LABEL.match(line)))


main()
