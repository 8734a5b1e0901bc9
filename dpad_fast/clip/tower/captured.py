"""A CLIP's two towers on a GPU, where a call is one replay of a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from dpad_fast._native.upload import upload
from dpad_fast.clip.tokens import Ids
from dpad_fast.clip.tower.fixed import Bins, Tables, VariableLengths, sequences_of
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.graphs import Graphs, Recorder, Run, ladder
from dpad_fast.clip.tower.packing import PackedTokens, pack_texts, whole_sequences
from dpad_fast.clip.tower.towers import Towers

Tensor = torch.Tensor
# The smallest buckets: rows of texts, and pictures. A GPU takes as long for less.
_TEXT_ROWS = 128
_PICTURES = 4
# The largest accepted relative difference of an embedding from the uncaptured towers'. Rounding in half precision makes
# some 1e-2; lengths of another work, or rows of padding, make about 1.
_SAME = 0.1


class CapturedTowers:
    """`Towers` whose work is padded to few sizes and replayed. Calls from several threads take turns.

    Args:
        towers: with `GpuProducts`. Their `rows_at_once` is the largest size.
        recorder: captures. Towers that share one share its memory, and take turns on the GPU.

    Raises:
        RuntimeError: what a replay gives for a work is not what the towers give, as with attention that asks the host
            for lengths, or that does not bear empty sequences.
    """

    def __init__(self, towers: Towers, recorder: Recorder) -> None:
        products, most, length = towers.products, towers.rows_at_once, towers.picture_rows
        assert isinstance(products, GpuProducts), "other products wait for the GPU"
        self.device, self.products = towers.device, products
        self._towers = towers
        tables: Tables = (VariableLengths if products.variable_lengths else Bins)(towers.context)
        self._tables = tables
        # The graphs hold the towers and not this object: their memory is free as soon as nobody holds it.
        self._texts = Graphs(
            _text_runs(towers, tables),
            recorder,
            ladder(_TEXT_ROWS, most),
            lambda rows: sum(tables.capacities(rows)),
            torch.int64,
        )
        self._pictures = Graphs(
            _picture_runs(towers),
            recorder,
            ladder(_PICTURES, max(1, most // length)),
            lambda pictures: pictures * (length - 1) * towers.patch_values,
            torch.float32,
        )
        self._try()

    def texts(self, rows: Sequence[Ids], threads: int) -> Tensor:
        """Embeddings, not normalised, of N token id lists: float32 [N, D] on the GPU."""
        most = self._texts.sizes[-1]
        packed, places = pack_texts(rows, most, sequences_of(most), self._towers.read)
        found = [self._some_texts(piece) for piece in packed]
        (index,) = upload((places,), self.device)
        return _joined(found)[index]

    def images(self, pixels: Tensor, threads: int) -> Tensor:
        """Embeddings, not normalised, of K preprocessed images [K, 3, side, side]: float32 [K, D] on the GPU."""
        return _joined([self._some_images(piece) for piece in torch.split(pixels, self._pictures.sizes[-1])])

    def _try(self) -> None:
        """Replays another work than the smallest buckets were captured with, beside the uncaptured towers."""
        texts, pixels = self._towers.samples()
        with torch.inference_mode():
            self.texts(texts[-1:], 1)
            self.images(pixels[:1], 1)
            for what, found, expected in (
                ("text", self.texts(texts, 1), self._towers.texts(texts, 1)),
                ("image", self.images(pixels, 1), self._towers.images(pixels, 1)),
            ):
                # What is not finite, as in float16 beyond its range, has to be so in both.
                error = ((found - expected).norm(dim=1) / expected.norm(dim=1)).nan_to_num(0.0).max()
                if torch.equal(found.isfinite(), expected.isfinite()) and not error > _SAME:
                    continue
                raise RuntimeError(
                    f"the CUDA graph of the {what} tower errs by {float(error):.2g} of an embedding; its attention is "
                    f"{self.products.attention!r}"
                )

    def _some_texts(self, packed: PackedTokens) -> Tensor:
        def fill(size: int, static: Tensor) -> None:
            staged = torch.empty(static.shape, dtype=torch.int64, device="cpu", pin_memory=self.device.type == "cuda")
            self._tables.write(packed, size, staged)
            static.copy_(staged, non_blocking=True)

        return self._texts(self._tables.need(packed), fill, packed.count)

    def _some_images(self, pixels: Tensor) -> Tensor:
        towers, count = self._towers, len(pixels)

        def fill(size: int, static: Tensor) -> None:
            flat = static.view(-1, towers.patch_values)
            towers.copy_patches(pixels, flat[: count * (towers.picture_rows - 1)])

        return self._pictures(count, fill, count)


def _joined(found: list[Tensor]) -> Tensor:
    return found[0] if len(found) == 1 else torch.cat(found)


def _text_runs(towers: Towers, tables: Tables) -> Callable[[int, Tensor], Run]:
    def run_of(size: int, static: Tensor) -> Run:
        parts = torch.split(static, list(tables.capacities(size)))

        def run() -> Tensor:
            read = tables.describe(parts)
            return towers.of_tokens(read.tokens, read.positions, read.paths, read.ends, threads=1)

        return run

    return run_of


def _picture_runs(towers: Towers) -> Callable[[int, Tensor], Run]:
    def run_of(size: int, static: Tensor) -> Run:
        flat = static.view(-1, towers.patch_values)
        # Attention describes them on the GPU in the warm-up, and the graph reads that: the run holds it.
        paths = whole_sequences(size, towers.picture_rows)
        return lambda: towers.of_patches(flat, paths, threads=1)

    return run_of
