"""On-disk cache of engines and compiled programs, by a digest of everything that they depend on.

`key` hashes the parts of a key, `entry` reads and writes one entry, `store` manages entries, and
`location` finds the folder. The parts themselves are collected in `compiler/building/keys.py`.
"""
