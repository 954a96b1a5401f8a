"""What concerns the machine: a bundle for nodes without a network, checks of the CUDA path."""
