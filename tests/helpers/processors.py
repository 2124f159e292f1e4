"""Environments of processes that a test starts: narrower instruction sets, and a heap that ends a process which writes past a buffer."""

from __future__ import annotations

INSTRUCTION_SETS: dict[str, dict[str, str]] = {
    'native': {},
    'avx2': {'ONEDNN_MAX_CPU_ISA': 'AVX2', 'ATEN_CPU_CAPABILITY': 'avx2'},
}
"""The instruction sets that torch may use. Only x86 processors read this; on others all are native."""

HEAP_CHECKED = {
    'LD_PRELOAD': 'libc_malloc_debug.so.0',
    # Buffers are filled with 0x7f, a huge number in every floating-point format: one that is read before it is written shows.
    'GLIBC_TUNABLES': 'glibc.malloc.check=3:glibc.malloc.perturb=128',
}
"""glibc checks each buffer when it is freed. Without glibc 2.34 or newer nothing is checked but what ends a process anyhow."""
