"""The five kernels on CPUs."""

from saelab.kernels.reference import choose, column_sums, sddmm, spmm, spmm_t

__all__ = ["choose", "column_sums", "sddmm", "spmm", "spmm_t"]
