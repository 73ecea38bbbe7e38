"""The GPU campaign: all that is to be checked and measured when a GPU is at hand for a few minutes, in one command.

    python -m tests.benchmarks.gpu --minutes 9 -o DIR                  # again until nothing is left, on this machine or another
    python -m tests.benchmarks.gpu --device cpu --minutes 2 -o DIR     # the proof that the campaign works: small sizes, no GPU
    python -m tests.benchmarks.gpu --show phases                       # a table of docs/performance.md

`steps.py` says what a step is and names them all; `correctness.py`, `measurements.py` and `candidates.py` have them by group;
`campaign.py` carries them out within the time, in a process of their own (`worker.py`); `kept.py` is what lies in DIR, one file a
step; `tables.py` makes tables of it.
"""
