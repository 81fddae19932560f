"""bench: latency and throughput of a compiled file, beside eager PyTorch and a bare session."""
