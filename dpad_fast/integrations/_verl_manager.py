"""`DpadRewardManager`: verl's reward loop, with samples that arrive together scored together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from dpad_fast.integrations._row_reader import row_of
from dpad_fast.integrations._verl_config import check_config
from dpad_fast.integrations._verl_rows import VerlRows, scorer_settings

_NOT_TRUTH = ("raw_prompt", "multi_modal_data", "multi_modal_inputs", "tools_kwargs", "interaction_kwargs")
_log = logging.getLogger(__name__)


class DpadRewardManager(RewardManagerBase):
    """Scores verl's samples with a `RewardScorer` or a server, a step's samples in few batches.

    The picture is the one of `raw_prompt`, the ground truth what `Target.from_row` reads from the sample's columns
    (`reward_model.ground_truth` among them, which may be an object of such columns or its JSON text). A sample that
    cannot be scored gets `unscored_reward` and its reason.

    Args:
        config: verl's whole configuration. `reward.reward_kwargs` holds the scorer's settings (`url` and `token`, or
            `preset`, `config`, `encoder`, `device`, `threads` and so on) and `columns`, `window_ms`, `max_batch`,
            `unscored_reward`, `max_failures`, `model_sizes`; docs/verl.md lists them.
        tokenizer: the policy's.
        compute_score: verl's; not called.
        reward_router_address: not used.
        reward_model_tokenizer: not used.

    Raises:
        ValueError: a bad setting, or one that verl would ignore; says what to set.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        check_config(config)
        settings = scorer_settings(config.reward.get("reward_kwargs"))
        self._rows = VerlRows(
            settings,
            processor=lambda: _image_processor(config.actor_rollout_ref.model.path),
            sizes=config.get("data", {}).get("mm_processor_kwargs"),
        )
        self._named = self._rows.columns is not None  # the user says where the ground truth is
        self._spared = spared_tokens(tokenizer, self._rows.config.tags)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Scores one sample.

        Args:
            data: a `DataProto`; its last row counts, as in verl's own managers.

        Returns:
            "reward_score", and "reward_extra_info" with the same keys for every sample.
        """
        item = data[-1:][0]
        columns = item.non_tensor_batch
        row = self._truth({name: value for name, value in columns.items() if name not in _NOT_TRUTH})
        shown = {"raw_prompt": columns["raw_prompt"]} if "raw_prompt" in columns else {"images": None}
        reward, log = await self._rows.score(self._text(item.batch), row, shown)
        return {"reward_score": reward, "reward_extra_info": log}

    def _truth(self, row: dict[str, Any]) -> Mapping[str, Any] | ValueError:
        """The columns, with the fields of a ground truth that is an object or its JSON text in its place."""
        holder = row.get("reward_model")
        truth = holder.get("ground_truth") if isinstance(holder, Mapping) else None
        is_text = isinstance(truth, str) and truth.lstrip()[:1] == "{"
        if self._named or not (is_text or isinstance(truth, Mapping)):
            return row
        found = row_of(truth)
        if isinstance(found, ValueError):
            return found
        return {**{name: value for name, value in row.items() if name != "reward_model"}, **found}

    def _text(self, batch: Any) -> str:
        responses = batch["responses"]
        count = int(batch["attention_mask"][-responses.shape[-1] :].sum())
        ids = responses[:count]
        if self._spared is None:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        kept = [token for token in ids.tolist() if token not in self._spared]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))


def spared_tokens(tokenizer: Any, tags: Sequence[str]) -> frozenset[int] | None:
    """The special tokens to leave out of a completion where tags are special tokens too.

    Args:
        tokenizer: the policy's.
        tags: their names, such as "answer".

    Returns:
        Ids; None where no tag is lost when special tokens are skipped, as verl does.

    Raises:
        ValueError: a tag that the tokenizer cannot spell, so that no completion could be well-formed.
    """
    special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    special |= set(tokenizer.all_special_ids)
    lost, wanted = [], set()
    for tag in (form.format(name) for name in tags for form in ("<{}>", "</{}>")):
        ids = tokenizer.encode(tag, add_special_tokens=False)
        if tag in tokenizer.decode(ids, skip_special_tokens=True):
            continue
        if tag not in tokenizer.decode(ids, skip_special_tokens=False):
            raise ValueError(f"the policy's tokenizer cannot spell {tag}: encoded and decoded it is another text")
        lost.append(tag)
        wanted |= set(ids)
    if not lost:
        return None
    _log.warning(
        "dpad: %s are special tokens of the policy's tokenizer. DpadRewardManager keeps them; verl's own managers and "
        "its logs of generations (skip_special_tokens=True) drop them",
        ", ".join(lost),
    )
    return frozenset(special - wanted)


def _image_processor(path: str) -> Any:
    from transformers import AutoImageProcessor
    from verl.utils.fs import copy_to_local

    return AutoImageProcessor.from_pretrained(copy_to_local(path))
