"""Short-time Fourier transforms: gather frames by indices, and transform each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor


def _stft(
    x: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    """Gather the frames and transform them.

    torch.onnx writes ONNX's STFT, which ONNX Runtime computes with low accuracy.
    """
    if align_to_window:
        return NotImplemented
    hop = n_fft // 4 if hop_length is None else hop_length
    batch = x.unsqueeze(0) if x.dim() == 1 else x
    frames = batch[:, _frames(x, (x.shape[-1] - n_fft) // hop + 1, hop, n_fft)]
    if window is not None:
        frames = frames * _centred(window, n_fft)
    elif win_length is not None and win_length != n_fft:
        frames = frames * _centred(torch.ones(win_length, dtype=x.dtype, device=x.device), n_fft)
    norm = "ortho" if normalized else "backward"
    is_real = not frames.is_complex()
    if is_real and onesided is not False:
        spectrum = torch.fft.rfft(frames, norm=norm)
    else:
        spectrum = torch.fft.fft(frames, norm=norm)
    spectrum = spectrum.transpose(1, 2)
    spectrum = spectrum.squeeze(0) if x.dim() == 1 else spectrum
    return spectrum if return_complex else torch.view_as_real(spectrum)


def _istft(
    spectrum: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    """Overlap-add the inverse transforms; PyTorch adds by index, which takes engines many nodes."""
    if spectrum.dtype not in (torch.complex64, torch.complex128):
        return NotImplemented
    hop = n_fft // 4 if hop_length is None else hop_length
    columns = (spectrum.unsqueeze(0) if spectrum.dim() == 2 else spectrum).transpose(1, 2)
    norm = "ortho" if normalized else "backward"
    if return_complex:
        frames = torch.fft.ifft(columns, norm=norm)
    else:
        frames = torch.fft.irfft(columns[..., : n_fft // 2 + 1], n_fft, norm=norm)
    if window is None:
        size = n_fft if win_length is None else win_length
        window = torch.ones(size, dtype=spectrum.real.dtype, device=spectrum.device)
    window = _centred(window, n_fft)
    count = columns.shape[1]
    signal = _overlapped(frames * window, hop)
    envelope = _overlapped(window.square().expand(1, count, n_fft), hop)
    start, total = n_fft // 2 if center else 0, n_fft + hop * (count - 1)
    end = total - start if length is None else start + length
    signal = (signal[:, :total] / envelope[:, :total])[:, start:end]
    if length is not None and end > total:
        signal = aten.constant_pad_nd(signal, [0, end - total])
    return signal.squeeze(0) if spectrum.dim() == 2 else signal


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Overlap-add frames [batch, count, length] at distance `hop` to [batch, samples].

    The frames are cut into pieces of `hop` elements: piece i of a frame is aligned with piece 0 of
    the frame that starts i later.
    """
    batch, count, length = frames.shape
    pieces = -(-length // hop)
    frames = aten.constant_pad_nd(frames, [0, pieces * hop - length])
    total = None
    for i in range(pieces):
        piece = frames[:, :, i * hop : (i + 1) * hop]
        moved = aten.constant_pad_nd(piece, [0, 0, i, pieces - 1 - i])
        total = moved if total is None else total + moved
    assert total is not None
    return torch.reshape(total, (batch, (count + pieces - 1) * hop))


def _frames(like: Tensor, count: Any, hop: int, length: int) -> Tensor:
    """Return [count, length], the indices of the elements of each frame."""
    start = torch.arange(count, device=like.device) * hop
    return start[:, None] + torch.arange(length, device=like.device)


def _centred(window: Tensor, length: int) -> Tensor:
    left = (length - window.shape[0]) // 2
    right = length - window.shape[0] - left
    padded: Tensor = aten.constant_pad_nd(window, [left, right])
    return padded


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.istft.default: _istft,
    aten.stft.default: _stft,
}
