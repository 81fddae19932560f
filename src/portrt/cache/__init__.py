"""The engine cache: what was built once, on disk, found by a digest of all that went into it.

`key` names the parts of a key, `parts` says which they are, `describe` puts graphs and tensors into
words, `store` keeps entries, `where` says in which folder, and `use` is what `compile` calls.
"""
