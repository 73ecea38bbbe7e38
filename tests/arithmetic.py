"""The arithmetic in which tests compare numbers. To be imported before torch.

Where torch rounds as AVX-512 does, one unit of a generator of CGIL ends at other weights than in its authors' vectors, by 171
times the limit; without, the largest error is half of the limit. AVX2 is what nearly every machine has.

One thread: sums have one order on every machine, and processes of pytest's -n do not wait for each other's threads. Vectors of
DIKI took 60 seconds of processor time with two threads on two busy cores, and 26 with one.
"""

import os
from pathlib import Path

PROCESSOR = Path("/proc/cpuinfo")
if PROCESSOR.is_file() and "avx512f" in PROCESSOR.read_text(encoding="utf-8"):
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")  # also for the commands that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
