"""A reward manager for tests: `DpadRewardManager` whose scorer explodes on request and which counts its batches."""

from dpad_fast.integrations.verl import DpadRewardManager
from dpad_fast.rewards import MicroBatcher


class Exploding:
    """A scorer that fails where a completion says so."""

    def __init__(self, scorer):
        self.scorer, self.config = scorer, scorer.config

    def score(self, completions, *rest, **settings):
        if any("explode" in str(text) for text in completions):
            raise RuntimeError("a scorer's own fault")
        return self.scorer.score(completions, *rest, **settings)


class CountingManager(DpadRewardManager):
    """Adds how many batches were scored so far to what a sample gets."""

    def __init__(self, config, tokenizer, compute_score, **settings):
        super().__init__(config, tokenizer, compute_score, **settings)
        self.batches = []
        observe = lambda rows, seconds, batch: self.batches.append(rows if batch is not None else 0)  # noqa: E731
        scorer = Exploding(self._rows._batcher.scorer)
        self._rows._batcher = MicroBatcher(scorer, window_ms=200, observe=observe)

    async def run_single(self, data):
        found = await super().run_single(data)
        found["reward_extra_info"]["batches"] = len(self.batches)
        return found
