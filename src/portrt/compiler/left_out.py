"""What attempts at a plan leave out: operators whose results differ from PyTorch's."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from portrt.compiler.building.at_fault import operator_names
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.checking.fault import Fault
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Plan
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)


@dataclass
class LeftOut:
    """What earlier attempts leave to PyTorch.

    Attributes:
        nodes: Name of a node of the lowered program -> the reason.
        whole: Name of a node of the captured program -> the reason; it is not decomposed either.
    """

    nodes: dict[str, Verdict] = field(default_factory=dict)
    whole: dict[str, Verdict] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.nodes or self.whole)

    def add(self, fault: Fault) -> None:
        """Leave out the operator at fault.

        Raises:
            CheckError: It is left out already, or no operator is known: another attempt would end
                in the same way.
        """
        if fault.whole - self.whole.keys():
            self.whole |= dict.fromkeys(fault.whole, fault.verdict())
            self.nodes.clear()  # the next lowering gives other names
        elif fault.nodes - self.nodes.keys():
            self.nodes |= dict.fromkeys(fault.nodes, fault.verdict())
        else:
            raise fault.error()


class Faults:
    """What is done about faults, by the option `check`.

    Args:
        settings: Settings of the compilation.
        left_out: Takes what the next attempt leaves out.
        tasks: The engines to build; they take what one backend of several leaves out.
        whole_blocks: Whether to leave out whole blocks, after many attempts.
    """

    def __init__(
        self,
        settings: Settings,
        left_out: LeftOut,
        tasks: Sequence[EngineTask],
        *,
        whole_blocks: bool,
    ) -> None:
        self._check = settings.check
        self._left_out = left_out
        self._tasks = tasks
        self.whole_blocks = whole_blocks
        self.any = False

    def found(self, fault: Fault | None, plan: Plan | None = None) -> bool:
        """Return whether the program is to be planned again because of a fault.

        Raises:
            CheckError: `check` is "error", or nothing can be left out.
        """
        if fault is None:
            return False
        if self._check == "accept":
            logger.warning("%s; accepted", fault.happened)
            return False
        if self._check != "fallback":
            raise fault.error()
        for block in plan.blocks if plan is not None and self.whole_blocks else ():
            names = operator_names(block)
            if names & fault.nodes:
                fault = dataclasses.replace(fault, nodes=fault.nodes | names)
        own = [task for task in self._tasks if task.builder.name == fault.backend]
        if own and len(own) < len(self._tasks):
            _refuse(own, fault)
            where = f"in no {fault.backend} engine"
        else:
            self._left_out.add(fault)
            where = "in PyTorch"
        logger.warning("%s; it stays %s, and the rest is planned again", fault.happened, where)
        self.any = True
        return True


def _refuse(tasks: Sequence[EngineTask], fault: Fault) -> None:
    """Leave the nodes at fault out of the engines of one backend; the others keep them.

    Raises:
        CheckError: They are left out already: another attempt would end in the same way.
    """
    if not any(fault.nodes - task.refused.keys() for task in tasks):
        raise fault.error()
    for task in tasks:
        task.refused.update(dict.fromkeys(fault.nodes, fault.verdict()))
