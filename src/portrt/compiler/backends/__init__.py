"""What builds and runs engines. `base.py` is the contract, `registry.py` the list."""
