"""Short form of torch.export's errors: the cause, the user's line and torch's suggestions."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

from portrt.graphs.source_line import source_line

_MAX_CHARS = 400
_MAX_ADVICE = 3

# Lines around the cause that do not help a user: hints to torch's logs, links, and a first line
# that every failure inside a branch has.
_NOISE = re.compile(
    r"^For more (information|details)|TORCH_LOGS|TORCHDYNAMO|https?://|^Caused by|draft_export|"
    r"doesn't work unless it is captured completely|If you suspect the guard|developer context"
)
# At the end of a line that has the cause.
_REFERENCE = re.compile(r"(?<=\S)\s*For more (information|details)\b.*")
# Hints that are not actionable for a user.
_NO_ADVICE = re.compile(
    r"open an issue|report an issue|is fundamental|debug context|torch\._dynamo|set_stance"
)
# Words in torch's message -> a remedy, where torch has no hint.
_ADVICE = {
    "alias": "return copies from branches and bodies: t.clone() for t or a view of it",
    "data-dependent": "choose by data with torch.cond or torch.where, and bound sizes by "
    "torch._check",
    "resize_ changes": "take the elements by reshape, narrow or torch.nn.functional.pad",
}
_OWN_FILES = str(Path(__file__).parent.parent)


@dataclass(frozen=True)
class TorchError:
    """An error of torch.export in short.

    Attributes:
        cause: torch's message, on one line.
        place: "model.py:12 in forward: CODE" of the user's model, or "" if torch has none.
        advice: torch's suggestions, each on one line.
    """

    cause: str
    place: str
    advice: tuple[str, ...]

    @classmethod
    def of(cls, err: BaseException) -> TorchError:
        """Read an error that torch.export raised."""
        text = str(err).strip()
        lines = [_REFERENCE.sub("", line).strip() for line in text.splitlines()]
        return cls(_cause(lines) or type(err).__name__, _place(err, text), _advice(text, lines))

    def __str__(self) -> str:
        return f"{self.cause}\n  at {self.place}" if self.place else self.cause


def _cause(lines: list[str]) -> str:
    """Return the first relevant line, with the explanation below it if there is one."""
    relevant = [line for line in lines if line and not _NOISE.search(line)]
    violated = [line for line in lines if line.startswith("Constraints violated")]
    if violated:
        head = violated[0].partition("!")[0]
        rules = [line.removeprefix("- ") for line in relevant if line.startswith("- ")]
        return _short(f"{head}: {rules[0]}" if rules else head)
    if not relevant:
        return ""
    head = relevant[0].partition(" (unhinted")[0]
    explained = next((line for line in relevant if line.startswith("Explanation: ")), "")
    return _short(f"{head}: {explained.removeprefix('Explanation: ')}" if explained else head)


def _place(err: BaseException, text: str) -> str:
    """Return the innermost line of the model, from torch's message or from the traceback."""
    frames = [
        frame
        for frame in traceback.extract_tb(err.__traceback__)
        if not frame.filename.startswith(_OWN_FILES)
    ]
    for found in (source_line(text), source_line("".join(traceback.format_list(frames)))):
        if found and not found.startswith("torch/"):
            return found
    return ""


def _advice(text: str, lines: list[str]) -> tuple[str, ...]:
    _, _, after = text.partition("Suggested fixes:\n")
    fixes = [line.strip() for line in after.partition("\n\n")[0].splitlines() if line.strip()]
    if fixes:
        where = "in dynamic_shapes, or by the shapes and shared_dims of Input"
        return (f"{where}, apply torch's suggestion: {'; '.join(fixes)}",)
    hints = [line.removeprefix("Hint: ") for line in lines if line.startswith("Hint: ")]
    useful = [_short(hint.rstrip(".")) for hint in hints if not _NO_ADVICE.search(hint)]
    if not useful:
        useful = [advice for word, advice in _ADVICE.items() if word in text]
    return tuple(useful[:_MAX_ADVICE])


def _short(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 3]}..."
