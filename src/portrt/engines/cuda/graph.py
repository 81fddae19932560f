"""A CUDA graph with memcpy nodes whose source or target address is updated before each launch.

A graph reads and writes at fixed addresses, and the caller's tensors have other addresses in each
call. With the copies in the graph a call is one launch; outside of it, each copy would be another.
Nothing here releases the GIL: in a server with many threads, to get it back takes longer than a
launch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from portrt.engines.cuda.driver import cuda_driver, current_context

_MEMCPY_NODE = 1  # CU_GRAPH_NODE_TYPE_MEMCPY

_Size, _Pointer = ctypes.c_size_t, ctypes.c_void_p


class _Memcpy3D(ctypes.Structure):
    """CUDA_MEMCPY3D of cuda.h."""

    _fields_ = (
        ("srcXInBytes", _Size),
        ("srcY", _Size),
        ("srcZ", _Size),
        ("srcLOD", _Size),
        ("srcMemoryType", ctypes.c_int),
        ("srcHost", _Pointer),
        ("srcDevice", _Size),
        ("srcArray", _Pointer),
        ("reserved0", _Pointer),
        ("srcPitch", _Size),
        ("srcHeight", _Size),
        ("dstXInBytes", _Size),
        ("dstY", _Size),
        ("dstZ", _Size),
        ("dstLOD", _Size),
        ("dstMemoryType", ctypes.c_int),
        ("dstHost", _Pointer),
        ("dstDevice", _Size),
        ("dstArray", _Pointer),
        ("reserved1", _Pointer),
        ("dstPitch", _Size),
        ("dstHeight", _Size),
        ("WidthInBytes", _Size),
        ("Height", _Size),
        ("Depth", _Size),
    )


class GraphCopy:
    """A memcpy node of an instantiated graph.

    A new address holds for the launches that follow, not for those already enqueued.

    Args:
        executable: The graph's `cudaGraphExec_t`.
        node: The memcpy node in the graph that it was instantiated from.
        parameters: The node's current parameters.
        context: The CUDA context of its memory.
    """

    def __init__(
        self, executable: int, node: int, parameters: _Memcpy3D, context: ctypes.c_void_p
    ) -> None:
        self._parameters = parameters
        self._arguments = (
            _Pointer(executable),
            _Pointer(node),
            ctypes.byref(parameters),
            context,
        )
        self._set = cuda_driver().cuGraphExecMemcpyNodeSetParams

    def read_from(self, address: int) -> bool:
        """Set the source address; return False if the driver rejects it."""
        parameters = self._parameters
        before = parameters.srcDevice
        if before == address:
            return True
        parameters.srcDevice = address
        if self._set(*self._arguments) == 0:
            return True
        parameters.srcDevice = before
        return False

    def write_to(self, address: int) -> bool:
        """Set the target address; return False if the driver rejects it."""
        parameters = self._parameters
        before = parameters.dstDevice
        if before == address:
            return True
        parameters.dstDevice = address
        if self._set(*self._arguments) == 0:
            return True
        parameters.dstDevice = before
        return False


def record_copy(source: torch.Tensor, target: torch.Tensor, stream: int) -> None:
    """Enqueue a copy on a stream that is being captured into a graph.

    Args:
        source: Contiguous, on the GPU, with at least one element.
        target: Contiguous, with the same number of bytes.
        stream: Handle of the captured stream.

    Raises:
        RuntimeError: The driver returns an error.
    """
    addresses = (_Size(target.data_ptr()), _Size(source.data_ptr()))
    _check(
        cuda_driver().cuMemcpyDtoDAsync_v2(*addresses, _Size(source.nbytes), _Pointer(stream)),
        "cuMemcpyDtoDAsync",
    )


class CudaGraph:
    """A captured graph, instantiated.

    Args:
        graph: Captured with `keep_graph=True`, which keeps its `cudaGraph_t`.

    Raises:
        RuntimeError: The driver cannot instantiate it.
    """

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        graph.instantiate()
        self._graph = graph
        self._executable = graph.raw_cuda_graph_exec()
        self._given = _Pointer(self._executable)
        self._launch = cuda_driver().cuGraphLaunch

    def launch(self, stream: ctypes.c_void_p) -> None:
        """Launch the graph on a stream, like torch's `replay`.

        Raises:
            RuntimeError: The driver returns an error.
        """
        code = self._launch(self._given, stream)
        if code:
            _check(code, "cuGraphLaunch")

    def copies(self, ends: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[GraphCopy]:
        """Find the memcpy nodes of the copies that `record_copy` enqueued.

        Args:
            ends: Source and target of each copy; no two pairs are the same.

        Returns:
            The copies, in the order of `ends`.

        Raises:
            RuntimeError: The graph does not contain them, or the driver returns an error.
        """
        driver, context = cuda_driver(), current_context()
        found: dict[tuple[int, int], GraphCopy] = {}
        for node in self._nodes():
            kind = ctypes.c_int()
            _check(
                driver.cuGraphNodeGetType(_Pointer(node), ctypes.byref(kind)), "cuGraphNodeGetType"
            )
            if kind.value != _MEMCPY_NODE:
                continue
            parameters = _Memcpy3D()
            _check(
                driver.cuGraphMemcpyNodeGetParams(_Pointer(node), ctypes.byref(parameters)),
                "cuGraphMemcpyNodeGetParams",
            )
            key = (int(parameters.srcDevice), int(parameters.dstDevice))
            found[key] = GraphCopy(self._executable, node, parameters, context)
        try:
            return [found[source.data_ptr(), target.data_ptr()] for source, target in ends]
        except KeyError:
            raise RuntimeError("the graph does not have the copies that were recorded") from None

    def _nodes(self) -> list[int]:
        driver, raw, count = cuda_driver(), _Pointer(self._graph.raw_cuda_graph()), _Size()
        _check(driver.cuGraphGetNodes(raw, None, ctypes.byref(count)), "cuGraphGetNodes")
        nodes = (_Size * count.value)()
        _check(driver.cuGraphGetNodes(raw, nodes, ctypes.byref(count)), "cuGraphGetNodes")
        return list(nodes)


def _check(code: int, function: str) -> None:
    if code:
        raise RuntimeError(f"{function} failed with CUDA error {code}")
