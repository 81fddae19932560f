"""Permissions that an engine may need."""

from __future__ import annotations

from portrt.verdict import Verdict

NOT_TRUSTED = Verdict.no(
    "untrusted_code",
    "it carries host code: refused unless trust='host-code'",
    "load it with trust='host-code' if you trust the source of the file",
)


HOST_CODE = "host-code"
PICKLE = "pickle"

TRUSTS = (HOST_CODE, PICKLE)
