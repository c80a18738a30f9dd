"""The five kernels for CPUs, in numba and vendor matrix products."""
