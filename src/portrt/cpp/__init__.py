"""The run side in C++: `libportrt_runtime`, built against the installed torch.

Its sources, `csrc/`, travel with the package.
"""
