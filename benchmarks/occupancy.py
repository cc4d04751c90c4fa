"""How many warps of a kernel a multiprocessor holds at once."""

from __future__ import annotations

MOST_WARPS, _MOST_BLOCKS, _PARTITIONS = 64, 32, 4
_REGISTERS = 1 << 14  # of a partition, handed out to warps
_WARP_UNIT = 256  # of registers
_RESERVED = 1 << 10  # bytes of shared memory, for each block
_SHARED = {80: 164 << 10, 90: 228 << 10, 100: 228 << 10}


def resident_warps(arch: int, registers: int, threads: int, shared: int) -> int:
    """Warps that a multiprocessor of compute capability ``arch`` / 10 holds at once, of `MOST_WARPS`.

    Args:
        arch: 80, 90 or 100.
        registers: of a thread.
        threads: of a block.
        shared: bytes of shared memory of a block, without what the system keeps for itself.
    """
    warps = -(-threads // 32)
    of_warp = -(-32 * registers // _WARP_UNIT) * _WARP_UNIT
    by_registers = _PARTITIONS * (_REGISTERS // of_warp) // warps
    by_shared = _SHARED[arch] // (shared + _RESERVED)
    return warps * min(by_registers, by_shared, MOST_WARPS // warps, _MOST_BLOCKS)
