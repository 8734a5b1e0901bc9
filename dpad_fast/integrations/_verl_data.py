"""`DpadDataset`: what `dpad-fast data prepare` writes, as verl's data set."""

from __future__ import annotations

from typing import Any

from verl.utils.dataset.rl_dataset import RLHFDataset

from dpad_fast.train.templates import prompt_text

_COLUMNS = ("id", "problem", "solution", "image")


class DpadDataset(RLHFDataset):
    """verl's `RLHFDataset` over the files of `dpad-fast data prepare`, through `data.custom_cls`.

    It writes the prompt, with the picture before the text, and the columns that verl's trainer asks for: `data_source`
    ("dpad"), `reward_model.ground_truth` and `extra_info`. Everything else is `RLHFDataset`.

    `data.dpad.prompt` is a template of `dpad_fast.train.templates` ("dpad") or a text with {question},
    `data.dpad.coordinates` the space that it asks for ("pixel"), `data.dpad.system_prompt` the system's turn (none).

    Raises:
        ValueError: a file without the columns, or an unknown setting.
    """

    def _read_files_and_tokenize(self) -> None:
        settings = dict(self.config.get("dpad") or {})
        self._prompt = settings.pop("prompt", "dpad")
        self._coordinates = settings.pop("coordinates", "pixel")
        self._system = settings.pop("system_prompt", None)
        if settings:
            raise ValueError(
                f"unknown setting data.dpad.{next(iter(settings))!s:.80}; known: prompt, coordinates, system_prompt"
            )
        super()._read_files_and_tokenize()

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> Any:
        """`RLHFDataset`'s, after a look at the columns."""
        missing = [name for name in _COLUMNS if name not in dataframe.column_names]
        if missing:
            raise ValueError(
                f"{', '.join(map(str, self.data_files))} has no column {missing[0]!r}; it has "
                f"{', '.join(dataframe.column_names)}. DpadDataset reads what `dpad-fast data prepare` writes"
            )
        return super().maybe_filter_out_long_prompts(dataframe)

    def _build_messages(self, example: dict[str, Any], key: str) -> list[dict[str, Any]]:
        text = prompt_text(self._prompt, example["problem"], self._coordinates)
        picture = {"type": "image", "image": example["image"].convert("RGB")}
        messages = [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]
        return [{"role": "system", "content": self._system}, *messages] if self._system else messages

    def __getitem__(self, item: int) -> dict[str, Any]:
        row: dict[str, Any] = super().__getitem__(item)
        row.pop("image")  # it is in the prompt; beside it every sample would carry its pixels twice
        row["data_source"] = "dpad"
        row["reward_model"] = {"style": "rule", "ground_truth": row["solution"]}
        row["extra_info"] = {**row["extra_info"], "index": item, "id": row["id"]}
        row["index"] = item
        return row
