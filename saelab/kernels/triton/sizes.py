"""Block sizes and warps of every Triton program, for cards of NVIDIA and of AMD: one table, which
is what a test compiles for cards that are not here."""

from typing import NamedTuple

import torch


class Sizes(NamedTuple):
    """Of one maker's cards."""

    lanes: int
    """threads of a warp"""
    select_columns: int
    """items that a selecting program looks at together: one warp, so that a scan stays within it"""
    pairs: int
    """exact dots of one program"""
    block: int
    """numbers of a row that they read together"""
    listed: int
    """candidates that are compared with as many others"""
    wide: int
    """numbers of a row that a thread holds where a program holds the whole row"""
    summed: int
    """numbers of a row of which a program adds up a segment"""
    together: int
    """rows of a sum that are under way together"""
    limits: bool
    """whether its compiler takes a limit of registers, as NVIDIA's does"""

    def launch(self, warps: int, registers: int | None = None) -> dict[str, int]:
        """How a program of so many warps is launched. registers: of a thread, at most; without a
        limit NVIDIA's assembler would rather spill a few than run fewer programs at once. Products
        and sums may be fused, whatever this version of Triton does by itself."""
        limit = {"maxnreg": registers} if registers is not None and self.limits else {}
        return {"num_warps": warps, "enable_fp_fusion": True, **limit}


NVIDIA = Sizes(32, 256, 16, 128, 32, 16, 512, 4, True)
AMD = Sizes(64, 256, 16, 128, 32, 16, 512, 4, False)
SELECT_REGISTERS, ROW_REGISTERS, UPDATE_REGISTERS = 96, 80, 64


def here() -> Sizes:
    """Of this machine's cards; NVIDIA's where there is none, as they are interpreted then."""
    return AMD if torch.version.hip else NVIDIA


def power(n: int) -> int:
    """The least power of two that is not less than n."""
    return 1 << max(0, n - 1).bit_length()


def row_warps(width: int, sizes: Sizes) -> int:
    """Warps of a program that holds whole rows of this width."""
    return min(16, max(1, power(width) // (sizes.lanes * sizes.wide)))


def update_warps(width: int, sizes: Sizes) -> int:
    """Warps of an update, whose threads hold a row of weights, moments and gradient: twice as many,
    with half of them each."""
    return min(16, 2 * row_warps(width, sizes))
