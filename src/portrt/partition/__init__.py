"""partition: lowered program -> Plan."""

from portrt.partition.group import partition

__all__ = ["partition"]
