"""Environments for the processes of a test: narrower instruction sets, and a heap that aborts a process that writes past a buffer."""

from __future__ import annotations

INSTRUCTION_SETS: dict[str, dict[str, str]] = {
    'native': {},
    'avx2': {'ONEDNN_MAX_CPU_ISA': 'AVX2', 'ATEN_CPU_CAPABILITY': 'avx2'},
}
"""The instruction sets that torch may use. Only x86 processors read this setting; others always use their native instructions."""

HEAP_CHECKED = {
    'LD_PRELOAD': 'libc_malloc_debug.so.0',
    # Buffers are filled with 0x7f, a huge number in every floating-point format, so that reading before writing shows.
    'GLIBC_TUNABLES': 'glibc.malloc.check=3:glibc.malloc.perturb=128',
}
"""glibc checks each buffer when it is freed. Without glibc 2.34 or newer, only errors that abort a process anyway are found."""
