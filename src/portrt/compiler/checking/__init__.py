"""checking: the compiled program is compared with the captured one, and faults are located."""
