"""from_plan: wraps an engine that was built elsewhere into a program."""
