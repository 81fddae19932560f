"""Norms and softmaxes."""

from __future__ import annotations

import torch

from ops.case import FLOATS, T, rows

aten = torch.ops.aten


def _stats(op, training):  # type: ignore[no-untyped-def]
    """A batch norm that writes its statistics, on copies; with what it wrote."""

    def run(x, w, b, m, v):  # type: ignore[no-untyped-def]
        mean, var = m * 1, v * 1
        return (*op(x, w, b, mean, var, training, 0.1, 1e-5), mean, var)

    return run


CASES = [
    *[
        row
        for op in ("_softmax", "_log_softmax")
        for row in (
            *rows(f"{op}.default", T("b,5"), 1, False, over=FLOATS),
            *rows(f"{op}.default", T("b,5,s"), -1, False, over=("f32", "f16")),
            *rows(f"{op}.default", T("b,5,2"), 0, False),
            *rows(f"{op}.default", T(""), 0, False),
            *rows(f"{op}.default", T("0,5"), 1, False),
            *rows(f"{op}.default", T("b,5", -90, 90), 1, False, variant="large"),
            *rows(f"{op}.default", T("2,4,2", special=True), -1, False),
        )
    ],
    *rows("native_layer_norm.default", T("b,4"), [4], T("4"), T("4"), 1e-5, over=FLOATS),
    *rows("native_layer_norm.default", T("b,s,4"), [4], None, None, 1e-5, over=("f32", "f16")),
    *rows("native_layer_norm.default", T("b,3,4"), [3, 4], T("3,4"), T("3,4"), 1e-3),
    *rows("native_layer_norm.default", T("b,4"), [4], T("4"), None, 1e-5),
    *rows("native_layer_norm.default", T("b,4"), [4], None, T("4"), 1e-5),
    *rows("native_layer_norm.default", T("4"), [4], T("4"), T("4"), 1e-5),
    *rows(
        "aten.native_group_norm.default",
        T("b,4,3,3"),
        T("4"),
        T("4"),
        variant="image",
        over=FLOATS,
        function=lambda x, w, b: aten.native_group_norm(x, w, b, x.shape[0], 4, 9, 2, 1e-5),
    ),
    *rows(
        "aten.native_group_norm.default",
        T("b,4,s"),
        T("4"),
        T("4"),
        variant="sequence",
        function=lambda x, w, b: aten.native_group_norm(
            x, w, b, x.shape[0], 4, x.shape[2], 4, 1e-3
        ),
    ),
    *rows(
        "aten.native_group_norm.default",
        T("b,4,3"),
        variant="without weights",
        over=("f32", "f16"),
        function=lambda x: aten.native_group_norm(x, None, None, x.shape[0], 4, 3, 1, 1e-5),
    ),
    *rows(
        "_native_batch_norm_legit_no_training.default",
        T("b,3,4"),
        T("3"),
        T("3"),
        T("3"),
        T("3", 1, 2),
        0.1,
        1e-5,
        over=FLOATS,
    ),
    *rows(
        "_native_batch_norm_legit_no_training.default",
        T("b,3,4,4"),
        None,
        None,
        T("3"),
        T("3", 1, 2),
        0.1,
        1e-3,
        over=("f32", "f16"),
    ),
    *rows(
        "_native_batch_norm_legit_no_training.default",
        T("b,3"),
        T("3"),
        T("3"),
        T("3"),
        T("3", 1, 2),
        0.1,
        1e-5,
    ),
    *rows(
        "_native_batch_norm_legit.no_stats",
        T("4,3,4"),
        T("3"),
        T("3"),
        True,
        0.1,
        1e-5,
        over=FLOATS,
    ),
    *rows("_native_batch_norm_legit.no_stats", T("4,3"), None, None, True, 0.1, 1e-5),
    *[
        row
        for training in (True, False)
        for row in (
            *rows(
                "aten._native_batch_norm_legit.default",
                T("b,3,4"),
                T("3"),
                T("3"),
                T("3"),
                T("3", 1, 2),
                variant=f"training {training}",
                over=("f32", "f16", "f64") if training else FLOATS,
                function=_stats(aten._native_batch_norm_legit, training),
            ),
            *rows(
                "aten._native_batch_norm_legit.default",
                T("4,3,4,4"),
                T("3"),
                T("3"),
                T("3"),
                T("3", 1, 2),
                variant=f"image, training {training}",
                function=_stats(aten._native_batch_norm_legit, training),
            ),
        )
    ],
]
