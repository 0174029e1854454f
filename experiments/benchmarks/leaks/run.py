"""Sixty planted leaks and sixty honest pipelines: ``python experiments/benchmarks/leaks/run.py``.

Ends with 1 unless each leak was found in the part it was planted in, and no honest pipeline
alarmed. ``leaks`` or ``honest`` as a word runs one half; a number audits only so many of each.
"""

import sys
import warnings
from collections import Counter
from itertools import islice
from time import perf_counter, process_time

from pipeline.proving import prove_honest, prove_leaks
from stages.audit.zoo.honest import honest
from stages.audit.zoo.leaks import LEAKS

HONEST = 60


def main(words: list[str]) -> int:
    warnings.simplefilter("ignore")
    numbers = [int(word) for word in words if word.isdigit()]
    wanted = [word for word in words if not word.isdigit()] or ["leaks", "honest"]
    most = numbers[0] if numbers else None
    started = perf_counter(), process_time()
    wrong = 0
    print("| planted | kind | found in | column | first bad time | future | bars ahead |")
    print("|---|---|---|---|---|---|---|")
    proofs = prove_leaks(islice(LEAKS, most)) if "leaks" in wanted else iter(())
    found: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for proof in proofs:
        asked[proof.kind] += 1
        found[proof.kind] += proof.right
        if proof.report.findings:
            f = proof.report.findings[0]
            cells = (f.component, f.column, f"{f.time:%Y-%m-%d}", f.future, str(f.ahead))
        else:
            cells = ("**missed**", "", "", "", "")
        print("|", " | ".join((proof.name, proof.kind, *cells)), "|", flush=True)
    wrong += sum(asked.values()) - sum(found.values())
    alarms = passed = 0
    if "honest" in wanted:
        for proof in prove_honest(honest(n) for n in range(min(most or HONEST, HONEST))):
            alarms += not proof.report.passed
            passed += proof.report.passed
            if not proof.right:
                print(f"false alarm: {proof.name}: {proof.report.findings[0]}")
    wrong += alarms
    print()
    for kind, count in asked.items():
        print(f"{kind}: {found[kind]} of {count}")
    print(f"leaks found, and named: {sum(found.values())} of {sum(asked.values())}")
    print(f"false alarms: {alarms} of {alarms + passed} honest pipelines")
    seconds = perf_counter() - started[0], process_time() - started[1]
    print(f"{seconds[0]:.0f} s, {seconds[1]:.0f} s of them on the processor")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
