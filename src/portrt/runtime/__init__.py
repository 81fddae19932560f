"""Running a program: the operator, the choice of an engine, and the policy for that choice."""

from portrt.runtime.policy import Policy, cuda_graphs, policy
from portrt.runtime.report import BlockReport, report

__all__ = ["BlockReport", "Policy", "cuda_graphs", "policy", "report"]
