"""partition: lowered program -> Plan."""

from portrt.compiler.partition.cut import partition

__all__ = ["partition"]
