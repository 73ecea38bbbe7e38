"""The arithmetic in which tests compare numbers. To be imported before torch.

Where torch rounds as AVX-512 does, one unit of a generator of CGIL ends at other weights than in its authors' vectors, by 171
times the limit; without, the largest error is half of the limit. AVX2 is what nearly every machine has.
"""

import os
from pathlib import Path

PROCESSOR = Path("/proc/cpuinfo")
if PROCESSOR.is_file() and "avx512f" in PROCESSOR.read_text(encoding="utf-8"):
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")  # also for the commands that tests start
