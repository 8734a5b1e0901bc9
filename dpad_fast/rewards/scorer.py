"""`RewardScorer`: N completions, targets and images in, one `ScoreBatch` out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from dpad_fast.clip.images import find_pictures
from dpad_fast.rewards import arguments
from dpad_fast.rewards.background import Background, PendingScore
from dpad_fast.rewards.batch import Batch, combine, fails_gate
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.discriminative import Discriminator
from dpad_fast.rewards.geometry import read_truths
from dpad_fast.rewards.places import CaptionRow
from dpad_fast.rewards.segmented import segmented_ious, segmenter_of
from dpad_fast.rewards.spaces import ModelSizes, find_spaces, read_model_sizes, unknown_size
from dpad_fast.rewards.terms import caption_rows, term_columns
from dpad_fast.rewards.truth import check_places
from dpad_fast.row_errors import RowErrors
from dpad_fast.timer import Timer
from dpad_fast.types import ScoreBatch, Target

if TYPE_CHECKING:
    from dpad_fast.clip.encoder import ClipEncoder
    from dpad_fast.segmenters.prompts import Segmenter

_STAGES = ("parse", "geometry", "preprocess", "text", "image", "combine")


class RewardScorer:
    """Scores completions as a `RewardConfig` says.

    Args:
        config: which terms, and how.
        encoder: the frozen CLIP-like model; needed where the terms include "discriminative".
        segmenter: the one that `config.segmenter` names; None: it is made, on the CPU.

    Attributes:
        compared: completions compared under the encoder's precision "guarded" so far.
        recomputed: those of them that were embedded again in float32.

    Raises:
        ValueError: the configuration needs an encoder and there is none.
    """

    def __init__(
        self, config: RewardConfig, encoder: ClipEncoder | None = None, segmenter: Segmenter | None = None
    ) -> None:
        if config.needs_encoder and encoder is None:
            raise ValueError(
                "encoder is missing: the term 'discriminative' needs one (dpad_fast.load_encoder), "
                "or leave the term out of RewardConfig.terms"
            )
        self.config = config
        self.encoder, self.segmenter = encoder, segmenter_of(config, segmenter)
        self.compared = self.recomputed = 0
        self._background = Background()
        self._rebuild: tuple[Callable[[RewardConfig], RewardScorer], ClipEncoder] | None = None
        self._warned = False

    def rebuilt_by(self, rebuild: Callable[[RewardConfig], RewardScorer], encoder: ClipEncoder) -> None:
        """Makes this scorer picklable while it has `encoder`; `rebuild`, itself picklable, makes an equal scorer."""
        self._rebuild = (rebuild, encoder)

    def __reduce__(self) -> Any:
        """Through the `ScorerSpec` that this was built from; one without an encoder needs none."""
        if self.encoder is None:
            return type(self), (self.config, None, self.segmenter)
        if self._rebuild is None or self._rebuild[1] is not self.encoder:
            raise TypeError(
                "this RewardScorer cannot be pickled, for its encoder holds a model. Build it from a spec, which can: "
                "dpad_fast.ScorerSpec(config, encoder=NAME_OR_FOLDER).build()"
            )
        return self._rebuild[0], (self.config,)

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> ScoreBatch:
        """Scores N completions. A bad completion gets low scores and a reason; it never raises nor changes another's.

        Args:
            completions: N strings. Here and in the other columns an entry may be a `ValueError` from reading it, which
                is then the error of that row.
            targets: N ground truths, or solution strings.
            images: N images (PIL, path, bytes, {"bytes", "path"}, array or tensor), each the picture that its target
                describes, at the target's size or another; None where no term looks at images.
            image_keys: N keys; images of equal keys must be equal, and are embedded once. None entries have no key.
            model_sizes: N (width, height) of the images that the model saw, for `coordinates="pixel"`: pairs, an [N, 2]
                array or tensor, None where `config.model_size` holds or nothing is known. Or a function from a
                picture's (width, height) to that size, None where the model saw the picture as it is.
            on_error: "raise", or "row": a row with a bad target, image or size is left unscored (NaN in every column, a
                reason such as "bad-image", the message in `errors`), and the other rows get their usual values.

        Returns:
            The total, every term, the similarities and the reasons.

        Raises:
            ValueError: a bad argument; a bad target, image or size unless `on_error` is "row". Names index and field.

        Warns:
            UserWarning: once per scorer, where pixels are scored and the picture that the model saw is not known to be
                the given one (see docs/rewards.md).
        """
        return self._finish(self._begin(completions, targets, images, image_keys, model_sizes, on_error))

    def score_async(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> PendingScore:
        """`score` in the background: returns at once, so that a trainer can go on generating.

        Batches are scored in the order of the calls, and one is parsed while the encoder works on the one before it.
        The encoder's `threads` says how many CPU threads it may use beside the caller's own work.

        Returns:
            A handle with `result(timeout)` and `done()`, which can be awaited; it raises what `score` would.
        """
        texts, truths, shown, keys, sizes = map(
            arguments.snapshot, (completions, targets, images, image_keys, model_sizes)
        )
        return self._background.submit(
            lambda: self._begin(texts, truths, shown, keys, sizes, on_error),
            self._finish,
            arguments.tensors(shown, sizes),
            None if self.encoder is None else self.encoder.device,
        )

    def _begin(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None,
        image_keys: Sequence[Hashable] | None,
        model_sizes: ModelSizes | None,
        on_error: str,
    ) -> Batch:
        """Everything that needs no encoder."""
        timer = Timer(dict.fromkeys(_STAGES, 0.0))
        errors = RowErrors(on_error)
        count = arguments.check_lengths(completions, targets, images, model_sizes)
        encoded = self.config.needs_encoder
        pictures, index = ([], []) if images is None else find_pictures(images, image_keys, errors, contents=encoded)
        timer.lap("geometry")
        truths = arguments.read_targets(targets, self.config, errors)
        parsed = arguments.read_completions(completions, self.config, errors)
        timer.lap("parse")
        if encoded or self.segmenter is not None:
            arguments.check_pictures(pictures, index, errors)
        shown = None if images is None else [pictures[place] if place >= 0 else None for place in index]
        sizes = read_model_sizes(self.config, model_sizes, shown, count, errors)
        scales = find_spaces(self.config, truths, shown, sizes, errors)
        check_places(self.config, truths, shown, errors)
        if not self._warned:
            self._warn(unknown_size(self.config, shown, sizes, errors))
        found = read_truths(truths, self.config)
        columns = term_columns(self.config, parsed, truths, found, scales, errors)
        failed = fails_gate(columns, self.config)
        reasons = [completion.reasons[0] if completion.reasons else None for completion in parsed]
        if self.segmenter is not None:
            rows = [i for i in range(count) if i not in failed]
            given = (self.segmenter, self.config, rows, parsed, truths, scales)
            columns["mask_iou"] = segmented_ious(*given, images, reasons, errors)
        captions: list[CaptionRow] = []
        if encoded and count:
            shown_as = index if images is not None else None
            captions = caption_rows(self.config, parsed, truths, found, scales, failed, shown_as, errors)
        timer.lap("geometry")
        return Batch(count, columns, reasons, captions, pictures, timer.seconds, errors)

    def _warn(self, message: str | None) -> None:
        if message is not None:
            self._warned = True
            warnings.warn(message, stacklevel=4)  # the caller of `score`

    def _finish(self, batch: Batch) -> ScoreBatch:
        """The encoder's part, and the sum."""
        if self.config.needs_encoder and batch.count:
            batch.columns["discriminative"] = self._discriminate(batch)
        timer = Timer(batch.timings)
        scores = combine(batch, self.config)
        timer.lap("combine")
        return scores

    def _discriminate(self, batch: Batch) -> list[float]:
        column = [0.0] * batch.count
        if not batch.captions:
            return column
        assert self.encoder is not None
        discriminator = Discriminator(batch.pictures, self.config, self.encoder, batch.errors)
        results = discriminator.run(batch.captions, batch.timings)
        self.compared += discriminator.compared
        self.recomputed += discriminator.recomputed
        for i, found in results.items():
            if isinstance(found, str):
                batch.reasons[i] = batch.reasons[i] or found
            else:
                column[i], batch.similarity["roi"][i], batch.similarity["aoi"][i] = found
        return column
