"""Run side: opens stored engines and runs them. Imports no compiler."""
