"""The backend "portrt" of `torch.compile`, which torch finds by its entry point."""

from portrt.compiler.torch_compile.backend import portrt_backend

__all__ = ["portrt_backend"]
