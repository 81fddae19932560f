"""Are the numbers of an engine those of the block that it was built from?"""
