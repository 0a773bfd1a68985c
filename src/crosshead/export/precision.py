"""Graphs in other precisions than float32, by ONNX Runtime's own tools."""

import logging
from pathlib import Path
from typing import Any, Literal

import onnx

Precision = Literal["fp32", "fp16", "int8"]


def write_in(precision: Precision, proto: Any, file: Path) -> None:
    """The model in ``precision``: "fp16" keeps float32 at inputs and outputs; "int8" has the weights of its linear
    layers in 8 bits, with a scale for each output channel, and finds the scale of what they act on as it runs."""
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        proto = convert_float_to_float16(proto, keep_io_types=True)
    if precision != "int8":
        onnx.save(proto, str(file))
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a step of preparation that the export has done
    try:
        quantize_dynamic(
            proto,
            file,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
