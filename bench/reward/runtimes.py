"""The towers of CLIP on other runtimes: OpenVINO (float32, bfloat16, int8 by NNCF) and ONNX Runtime (float32, int8).

Each is what a careful user makes of it: both towers compiled once for the threads of the race, batches of any size,
captions of similar length together, int8 calibrated on captions and pictures like those that are timed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.reward import work as ways

CHUNK = 32
"""Captions, or pictures, in one call of a runtime."""


class ImageTower(nn.Module):
    """Pixels [B, 3, 224, 224] to projected embeddings [B, D], which are not of unit length yet."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The model's own forward."""
        return embedding(self.model.get_image_features(pixel_values=pixels))


class TextTower(nn.Module):
    """Token numbers [B, T] to projected embeddings [B, D]; causal, so padding after the end changes nothing."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The model's own forward."""
        return embedding(self.model.get_text_features(input_ids=ids))


def embedding(output: Any) -> torch.Tensor:
    found = getattr(output, "pooler_output", output)
    assert isinstance(found, torch.Tensor)
    return found


Call = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Towers:
    """Both towers of one runtime.

    Attributes:
        image: float32 pixels [B, 3, 224, 224] to float32 [B, D].
        text: int64 token numbers [B, T] to float32 [B, D].
    """

    image: Call
    text: Call


class Runtime(ways.HandWritten):
    """The hand-written way with the towers of a runtime."""

    def __init__(self, towers: Towers, processor: Any, remember: bool = False) -> None:
        super().__init__(None, processor, remember)
        self.towers = towers

    def embed_views(self, views: list[Any]) -> torch.Tensor:
        """float32 [N, D], of unit length."""
        pixels = self.processor.image_processor(views, return_tensors="pt")["pixel_values"].numpy()
        parts = [self.towers.image(pixels[i : i + CHUNK]) for i in range(0, len(pixels), CHUNK)]
        return ways.unit(torch.from_numpy(np.concatenate(parts)))

    def embed_captions(self, captions: list[str]) -> torch.Tensor:
        """float32 [N, D], of unit length: those of similar length in one call, so that little padding is computed."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer(captions)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: list[np.ndarray] = [np.empty(0)] * len(ids)
        for start in range(0, len(order), CHUNK):
            chunk = order[start : start + CHUNK]
            padded = tokenizer.pad({"input_ids": [ids[i] for i in chunk]}, return_tensors="np")["input_ids"]
            for i, row in zip(chunk, self.towers.text(padded.astype(np.int64)), strict=True):
                found[i] = row
        return ways.unit(torch.from_numpy(np.stack(found)))


def contestants(model: Any, processor: Any, threads: int, work: ways.Work) -> Iterator[tuple[str, Towers | str]]:
    """Each runtime by name, or why it cannot run here.

    Args:
        model: a CLIPModel in float32.
        processor: transformers' fast processor, for calibration.
        threads: for each runtime.
        work: other pictures and captions than those that are timed; int8 is calibrated on them.
    """
    calibration = Calibration(work, processor)
    for name, packages, make in (
        ("OpenVINO float32", ("openvino",), lambda: openvino(model, threads, "f32")),
        ("OpenVINO bfloat16", ("openvino",), lambda: openvino(model, threads, "bf16")),
        ("OpenVINO int8", ("openvino", "nncf"), lambda: openvino(model, threads, "f32", calibration)),
        ("ONNX Runtime float32", ("onnxruntime", "onnx"), lambda: onnx_runtime(model, threads)),
        ("ONNX Runtime int8", ("onnxruntime", "onnx"), lambda: onnx_runtime(model, threads, calibration)),
    ):
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        yield name, f"{missing[0]} is not installed" if missing else make()


class Calibration:
    """What int8 is calibrated on: every distinct view and caption of a batch."""

    def __init__(self, work: ways.Work, processor: Any) -> None:
        views = list(ways.views_of(work)[0].values())
        self.pixels = processor.image_processor(views, return_tensors="pt")["pixel_values"].numpy()
        captions = list(dict.fromkeys(map(ways.caption, work.texts)))
        self.ids = processor.tokenizer(captions, padding=True, return_tensors="np")["input_ids"].astype(np.int64)

    def of(self, tower: str) -> list[np.ndarray]:
        """Batches of eight."""
        rows = self.pixels if tower == "image" else self.ids
        return [rows[i : i + 8] for i in range(0, len(rows), 8)]


def examples(model: Any) -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Both towers, each with an input that shows its shape and type."""
    end = model.config.text_config.eos_token_id
    return {
        "image": (ImageTower(model).eval(), torch.randn(2, 3, 224, 224)),
        "text": (TextTower(model).eval(), torch.tensor([[5, 6, 7, end, end], [8, 9, 10, 11, end]])),
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings: of tracing, which is theirs, and of what torch will drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def openvino(model: Any, threads: int, precision: str, calibration: Calibration | None = None) -> Towers | str:
    """OpenVINO's CPU plug-in, which is told to finish one call as soon as possible."""
    import openvino as ov

    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this CPU has no bfloat16 instructions"
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    made: dict[str, Call] = {}
    for tower, (module, example) in examples(model).items():
        shape = [-1, 3, 224, 224] if tower == "image" else [-1, -1]
        with quiet(), torch.no_grad():
            converted = ov.convert_model(module, example_input=example, input=[ov.PartialShape(shape)])
        if calibration is not None:
            import nncf

            batches = nncf.Dataset(calibration.of(tower))
            kind = nncf.ModelType.TRANSFORMER
            converted = nncf.quantize(converted, batches, model_type=kind, subset_size=len(calibration.of(tower)))
        made[tower] = _openvino_call(core.compile_model(converted, "CPU", settings))
    return Towers(**made)


def _openvino_call(compiled: Any) -> Call:
    request = compiled.create_infer_request()

    def call(rows: np.ndarray) -> np.ndarray:
        return np.array(request.infer([rows], share_inputs=True)[0])

    return call


def onnx_runtime(model: Any, threads: int, calibration: Calibration | None = None) -> Towers | str:
    """ONNX Runtime's CPU provider with all its graph optimizations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    made: dict[str, Call] = {}
    for tower, (module, example) in examples(model).items():
        buffer = io.BytesIO()
        axes = {0: "batch"} if tower == "image" else {0: "batch", 1: "length"}
        with quiet(), torch.no_grad():
            torch.onnx.export(
                module, (example,), buffer, dynamo=False, opset_version=17,
                input_names=["rows"], output_names=["out"], dynamic_axes={"rows": axes, "out": {0: "batch"}},
            )  # fmt: skip
        content = buffer.getvalue() if calibration is None else _quantized(buffer.getvalue(), calibration.of(tower))
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        made[tower] = lambda rows, session=session: session.run(None, {"rows": rows})[0]
    return Towers(**made)


def _quantized(model: bytes, batches: list[np.ndarray]) -> bytes:
    """Weights a channel and activations in int8 (QDQ), calibrated."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            rows = next(self.rest, None)
            return None if rows is None else {"rows": rows}

    with tempfile.TemporaryDirectory() as folder:
        given, ready, made = (Path(folder) / name for name in ("given.onnx", "ready.onnx", "int8.onnx"))
        given.write_bytes(model)
        quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready), str(made), Reader(), per_channel=True, reduce_range=False,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        )  # fmt: skip
        return made.read_bytes()
