"""Policies of several families, a few thousand untrained parameters each, and one thread for every test."""

import pytest
import torch


@pytest.fixture(scope="session")
def random_policy(tmp_path_factory):
    """Folder of an untrained small policy, as shipped ones are stored."""
    from dpad_fast.train.policy import build_policy
    from dpad_fast.train.warm_start import small_policy

    folder = tmp_path_factory.mktemp("models") / "policy"
    small_policy.save(build_policy(0), folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}
TOWER = {"patch_size": 14, "temporal_patch_size": 1, "spatial_merge_size": 2, "initializer_range": 0.2, "num_heads": 4}
SIGLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
# family: its classes' name in transformers, its text and its vision settings
FAMILIES = {
    "qwen2-vl": ("Qwen2VL", {}, {**TOWER, "depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}),
    "qwen2.5-vl": (
        "Qwen2_5_VL",
        {},
        {**TOWER, "depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "window_size": 56}
        | {"fullatt_block_indexes": [1]},
    ),
    "qwen3-vl": (
        "Qwen3VL",
        {"head_dim": 8},
        {**TOWER, "depth": 3, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
        | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
    ),
    "smolvlm": ("SmolVLM", {"model_type": "llama"}, {**SIGLIP, "image_size": 56, "patch_size": 14}),
    "idefics3": ("Idefics3", {"model_type": "llama"}, {**SIGLIP, "image_size": 56, "patch_size": 14}),
    "internvl": ("InternVL", {"model_type": "qwen2"}, {**SIGLIP, "image_size": [56, 56], "patch_size": [14, 14]}),
}


@pytest.fixture(scope="session")
def tiny_policy():
    """A function: family -> an untrained model of the family's own class, with the small policy's vocabulary."""
    import transformers

    from dpad_fast.data.shapes_text import policy_tokenizer

    tokenizer = policy_tokenizer()
    special = {"bos": "<|bos|>", "eos": "<|eos|>", "pad": "<|pad|>"}
    marks = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    marks |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}

    def ids(names):
        return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}

    def make(family, seed=0):
        name, more, tower = FAMILIES[family]
        text = {**TEXT, **ids(special), "vocab_size": len(tokenizer), **more}
        if family.startswith("qwen"):
            rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
            text["rope_parameters"] = {**rope, **({"mrope_interleaved": True} if family == "qwen3-vl" else {})}
            known = ids(marks)
        else:
            known = ids({"image": "<|image_pad|>"})
        config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=tower, **known)
        torch.manual_seed(seed)
        return getattr(transformers, f"{name}ForConditionalGeneration")(config)

    return make


@pytest.fixture
def qwen3_vl_processor():
    """A `Qwen3VLProcessor` that shows 112 x 112 pictures as 16 tokens."""
    from transformers import Qwen3VLProcessor

    from dpad_fast.train.policy import CHAT_TEMPLATE, build_processor

    like = build_processor()
    return Qwen3VLProcessor(like.image_processor, like.tokenizer, like.video_processor, chat_template=CHAT_TEMPLATE)
