"""Pooling, resizing, sampling."""

from __future__ import annotations

import torch

from ops.case import FLOATS, T, rows

aten = torch.ops.aten
IMAGE = "b,2,8,8"
_GRID = (T("b,2,5,6"), T("b,3,4,2", -1, 1))  # an image, and where it is sampled

CASES = [
    *rows("avg_pool1d.default", T("b,2,8"), [3], [2], [1], over=("f32", "f16")),
    *rows("adaptive_avg_pool1d.default", T("b,2,8"), [4], over=("f32", "f16")),
    *rows("adaptive_avg_pool1d.default", T("b,2,7"), [3]),
    *rows("_adaptive_avg_pool2d.default", T(IMAGE), [1, 1], over=FLOATS),
    *rows("_adaptive_avg_pool2d.default", T(IMAGE), [4, 2], over=("f32", "f16")),
    *rows("_adaptive_avg_pool2d.default", T("b,2,7,5"), [3, 2]),
    *rows("_adaptive_avg_pool2d.default", T("b,2,3,3"), [5, 7]),
    *rows("_adaptive_avg_pool2d.default", T("b,2,h,8"), [1, 1]),
    *rows("_adaptive_avg_pool2d.default", T("2,8,8"), [2, 2]),
    *rows("_adaptive_avg_pool3d.default", T("b,2,4,4,4"), [1, 1, 1], over=("f32", "f16")),
    *rows("_adaptive_avg_pool3d.default", T("b,2,4,4,4"), [2, 4, 1]),
    *rows("_adaptive_avg_pool3d.default", T("2,2,5,4,7"), [3, 3, 2]),
    *rows("avg_pool2d.default", T(IMAGE), [2, 2], over=FLOATS, lacks=("f64",)),
    *rows("avg_pool2d.default", T(IMAGE), [3, 2], [2, 1], [1, 0], over=("f32", "f16")),
    *rows("avg_pool2d.default", T(IMAGE), [3, 3], [2, 2], [1, 1], True, True),
    *rows("avg_pool2d.default", T(IMAGE), [3, 3], [2, 2], [1, 1], True, False),
    *rows("avg_pool2d.default", T(IMAGE), [3, 3], [3, 3], [0, 0], True),
    *rows(
        "avg_pool2d.default", T(IMAGE), [2, 2], [2, 2], [0, 0], False, True, 3, over=("f32", "f16")
    ),
    *rows("avg_pool2d.default", T(IMAGE), [3, 3], [2, 2], [1, 1], True, True, 5),
    *rows(
        "avg_pool2d.default",
        T("i64:b,2,8,8", -100, 100),
        *([2, 2], [2, 2], [0, 0], False, True, 3),
        stays="ignores its divisor_override",
    ),
    *rows("avg_pool2d.default", T("b,2,h,8"), [3, 3], [2, 2], [1, 1], False, False),
    *rows("avg_pool2d.default", T("2,8,8"), [2, 2]),
    *rows("avg_pool3d.default", T("b,2,4,4,4"), [2, 2, 2]),
    *rows("avg_pool3d.default", T("b,2,5,5,5"), [3, 3, 3], [2, 2, 2], [1, 1, 1], False, False),
    *rows("avg_pool3d.default", T("b,2,5,5,5"), [3, 3, 3], [2, 2, 2], [1, 1, 1], True, True),
    *rows("avg_pool3d.default", T("b,2,4,4,4"), [2, 2, 2], [1, 1, 1], [0, 0, 0], False, True, 3),
    *rows("avg_pool3d.default", T("2,4,4,4"), [2, 2, 2]),
    *rows("max_pool2d_with_indices.default", T(IMAGE), [2, 2], over=FLOATS),
    *rows("max_pool2d_with_indices.default", T(IMAGE), [3, 2], [2, 1], [1, 0], over=("f32", "f16")),
    *rows("max_pool2d_with_indices.default", T(IMAGE), [3, 3], [2, 2], [1, 1], [1, 1], True),
    *rows("max_pool2d_with_indices.default", T(IMAGE), [3, 3], [1, 1], [1, 1], [2, 2]),
    *rows("max_pool2d_with_indices.default", T("b,2,h,8"), [3, 3], [2, 2], [1, 1]),
    *rows("max_pool2d_with_indices.default", T("2,8,8"), [2, 2]),
    *rows("max_pool3d_with_indices.default", T("b,2,4,4,4"), [2, 2, 2], over=("f32", "f16")),
    *rows("max_pool3d_with_indices.default", T("b,2,5,5,5"), [3, 3, 3], [2, 2, 2], [1, 1, 1]),
    *rows(
        "max_pool3d_with_indices.default",
        T("2,5,5,5"),
        [3, 3, 3],
        [2, 2, 2],
        [1, 1, 1],
        [1, 1, 1],
        True,
    ),
    # Resizing: to a size, or by factors.
    *[
        row
        for size, factors in (
            ([5, 11], None),
            ([16, 16], None),
            (None, [2.0, 2.0]),
            (None, [0.7, 1.3]),
        )
        for row in (
            *rows("upsample_nearest2d.vec", T(IMAGE), size, factors, over=("f32", "f16")),
            *rows("upsample_bilinear2d.vec", T(IMAGE), size, False, factors, over=("f32", "f16")),
            *rows("upsample_bilinear2d.vec", T(IMAGE), size, True, factors),
        )
    ],
    *rows(
        "upsample_nearest2d.vec",
        T("b,2,h,8"),
        None,
        [2.0, 2.0],
        over=("f32", "bf16", "f64"),
        lacks=("f64",),
    ),
    *rows(
        "upsample_bilinear2d.vec",
        T("b,2,h,8"),
        None,
        False,
        [2.0, 2.0],
        over=("f32", "bf16", "f64"),
        lacks=("f64",),
    ),
    *rows("upsample_bilinear2d.vec", T("b,2,h,8"), [4, 4], True, None),
    *rows("upsample_nearest2d.vec", T(IMAGE), None, [2.0, 2.0], over=("u8",)),
    # grid_sampler_2d(input, grid, interpolation, padding, align_corners)
    *[
        row
        for mode in (0, 1, 2)
        for padding in (0, 1, 2)
        for corners in (False, True)
        for row in rows(
            "grid_sampler_2d.default", T("b,2,5,6"), T("b,3,4,2", -1.5, 1.5), mode, padding, corners
        )
    ],
    *rows("grid_sampler_2d.default", *_GRID, 0, 0, False, over=("f64",)),
    # eager rounds the positions to float16, the engine does not: it is 0.0005 off, eager 0.009
    *rows("grid_sampler_2d.default", *_GRID, 0, 0, False, over=("f16",), tolerance=(4e-3, 2e-2)),
    # col2im(input, output_size, kernel_size, dilation, padding, stride)
    *rows(
        "col2im.default", T("b,8,9"), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1], over=("f32", "f16")
    ),
    *rows("col2im.default", T("b,18,9"), [6, 6], [3, 3], [1, 1], [1, 1], [2, 2]),
    *rows("col2im.default", T("b,8,4"), [6, 6], [2, 2], [2, 2], [0, 0], [2, 2]),
    *rows("col2im.default", T("8,9"), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
]
