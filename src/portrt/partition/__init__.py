"""partition: lowered program -> Plan."""

from portrt.partition.cut import partition

__all__ = ["partition"]
