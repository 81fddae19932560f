"""What a compilation puts into engines, and what it leaves to PyTorch and why."""
