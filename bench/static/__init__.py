"""What the compilers made of the GPU kernels."""
