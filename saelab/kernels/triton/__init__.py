"""The five kernels for GPUs, in Triton."""
