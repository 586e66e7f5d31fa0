"""clearnets: are networks that are sparse by construction more interpretable?

Importing the package fixes, for this process and those it starts, on which instructions numerical
libraries compute; see `ARITHMETIC`. They read this once, when they are loaded.
"""

import os
import sys

# The same instructions and orders of summation on every x86-64 processor with AVX2 and FMA, and on
# any number of cores. Values that the user has set stay; `departures` names them.
ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2,STRICT",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # numpy and scipy.
    "NPY_ENABLE_CPU_FEATURES": "X86_V3",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
}


class UserError(Exception):
    """A mistake that its user can cure. The message is one line and names the cure."""


def has_avx2() -> bool:
    """Return whether this is an x86-64 processor with AVX2 and FMA, as far as Linux tells."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    try:
        # Of the first processor. The whole file takes long to make where there are hundreds.
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            return {b"avx2", b"fma"} <= set(file.read(4096).split())
    except OSError:
        return False


def departures() -> list[str]:
    """Return what keeps results from being those of other machines, one line each.

    Empty where the bytes should be the same as on every processor with AVX2 and FMA.
    """
    if not has_avx2():
        return ["this is no x86-64 processor with AVX2 and FMA, on Linux"]
    return [
        f"{name} is {os.environ.get(name)!r}, not {value!r}"
        for name, value in ARITHMETIC.items()
        if os.environ.get(name) != value
    ]


if has_avx2():
    for _name, _value in ARITHMETIC.items():
        os.environ.setdefault(_name, _value)
# Threads that wait do not spin: other processes want the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
