"""Let numerical libraries compute the same bytes on every x86-64 processor with AVX2 and FMA.

`settle` is called when the package is imported; torch, numpy and scipy read the environment once,
when they are loaded. Processes that are started from here inherit it. Elsewhere nothing is done.

Torch's matrix products are those of MKL, which takes other kernels where the vendor is not Intel,
whatever MKL_CBWR says: then sums have another order. It asks two functions of its own for the
vendor, and the dynamic linker prefers ours, which say that it is Intel.
"""

import ctypes
import os
import struct
import sys

ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2,STRICT",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # numpy and scipy, whose products do not depend on the number of cores with one thread.
    "NPY_ENABLE_CPU_FEATURES": "X86_V3",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
}
VENDOR_CHECKS = ("mkl_serv_intel_cpu_true", "mkl_serv_intel_cpu")
_LIBRARIES = ("torch", "numpy", "scipy")

_departures = ["nothing was set: the package was not imported"]


def settle() -> None:
    """Set the environment, where the user has not, and the answer to MKL's question."""
    # Threads that wait do not spin: other processes want the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    vendor, flags = processor()
    if not {"avx2", "fma"} <= flags:
        _departures[:] = ["this is no x86-64 processor with AVX2 and FMA, or not Linux"]
        return
    _departures.clear()
    if loaded := [name for name in _LIBRARIES if name in sys.modules]:
        _departures.append(f"{' and '.join(loaded)} was imported before clearnets")
    for name, value in ENVIRONMENT.items():
        found = os.environ.setdefault(name, value)
        if found != value:
            _departures.append(f"{name} is set to {found}, not to {value}")
    if vendor != "GenuineIntel" and not _answer():
        _departures.append(f"MKL takes kernels for {vendor} here")


def departures() -> tuple[str, ...]:
    """Return why results of this process may differ from other machines' in their last digits.

    None where they should be the same as on every x86-64 processor with AVX2 and FMA.
    """
    return tuple(_departures)


def processor() -> tuple[str, set[str]]:
    """Return the vendor and the flags of an x86-64 processor on Linux; nothing elsewhere."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return "", set()
    try:
        # The first of them: the whole file takes long where there are hundreds.
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            lines = file.read(8192).decode(errors="replace").splitlines()
    except OSError:
        return "", set()
    pairs = [line.partition(":") for line in lines if ":" in line]
    found = {key.strip(): value.strip() for key, _, value in reversed(pairs)}
    return found.get("vendor_id", ""), set(found.get("flags", "").split())


def _answer() -> bool:
    """Load a library of our vendor checks before MKL; return whether it could be loaded."""
    try:
        file = os.memfd_create("vendor")
        try:
            os.write(file, shared_library(VENDOR_CHECKS, result=1))
            ctypes.CDLL(f"/proc/self/fd/{file}", mode=ctypes.RTLD_GLOBAL)
        finally:
            os.close(file)
    except OSError:
        return False
    return True


def shared_library(functions: tuple[str, ...], *, result: int) -> bytes:
    """Return a shared library (ELF, x86-64) whose functions return `result`, and do nothing else.

    It is the smallest that glibc loads: the code `mov eax, result; ret`, a table of symbols with
    their hashes, and the section that names these. No compiler is needed.
    """
    code = struct.pack("<BIB", 0xB8, result, 0xC3)
    names = b"\0" + b"".join(name.encode() + b"\0" for name in functions)
    page, header, count = 0x1000, 64 + 4 * 56, len(functions) + 1
    at_symbols = header + 8
    at_hash = at_symbols + 24 * count
    at_names = at_hash + 4 * (3 + count)
    at_dynamic = -(-(at_names + len(names)) // 8) * 8
    size = at_dynamic + 6 * 16

    symbols = bytes(24)
    for name in functions:
        offset = names.index(b"\0" + name.encode() + b"\0") + 1
        symbols += struct.pack("<IBBHQQ", offset, 0x12, 0, 1, header, len(code))
    # One bucket: a chain of all symbols.
    chain = [1, 0, *range(2, count), 0]
    hashes = struct.pack(f"<2I{len(chain)}I", 1, count, *chain)
    # glibc before 2.35 writes to this section: it lies in a page of its own in memory.
    entries = ((4, at_hash), (5, at_names), (6, at_symbols), (10, len(names)), (11, 24), (0, 0))
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)

    elf = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    elf += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0)
    for kind, flags, offset, address, length in (
        (1, 5, 0, 0, size),  # the file, to read and run
        (1, 6, at_dynamic, page + at_dynamic, len(dynamic)),
        (2, 6, at_dynamic, page + at_dynamic, len(dynamic)),
        (0x6474E551, 6, 0, 0, 0),  # The stack need not be executable.
    ):
        aligned = page if kind == 1 else 8
        elf += struct.pack(
            "<IIQQQQQQ", kind, flags, offset, address, address, length, length, aligned
        )
    body = code.ljust(8, b"\0") + symbols + hashes + names
    return (elf + body).ljust(at_dynamic, b"\0") + dynamic
