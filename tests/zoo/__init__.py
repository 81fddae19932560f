"""Models that people have, tiny and random, and what becomes of each."""
