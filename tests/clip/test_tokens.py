"""Token ids are those of the tokenizer or processor that the caller holds, whatever it does around its inner one."""

from types import SimpleNamespace

import pytest
import torch

import dpad_fast as df
from dpad_fast.testing import rewards as shared

TEXTS = [
    "a cat",
    "",
    "The LEFT-most cat's_bowl, near   the table!!",
    "caf\u00e9 &amp; 39 dogs",
    "a [SEP] red [CLS] cat",
    "a small red cat near the big table",
    "the blue dog " * 12,
]
WIDTH = 16


def unit(output):
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output).float(), dim=-1)


def word_tokenizer(**settings):
    """A word-piece tokenizer with every special token that open_clip's wrapper may ask for."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[BOS]", "[EOS]"]
    letters = [chr(code) for code in range(33, 127)]
    entries = [*special, *letters, *("##" + letter for letter in letters), *shared.WORDS, "The", "LEFT"]
    vocabulary = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pair = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "bos", "eos")}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names, **settings)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def clipa(open_clip, **text):
    """A CLIP that is read at the last place of a row and looks at all of it."""
    torch.manual_seed(0)
    return open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        text_cfg={
            "context_length": WIDTH,
            "vocab_size": 400,
            "width": 32,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
            "pool_type": "last",
            **text,
        },
    ).eval()


def agree(model, transform, tokenizer):
    """Ids and embeddings of the encoder against open_clip's, captions beyond the context cut by both."""
    encoder = df.ClipEncoder.from_open_clip(model, transform, tokenizer)
    tokens = encoder.tokens
    expected = tokenizer(TEXTS)
    rows = [tokens.truncate(ids) for ids in tokens.encode(TEXTS)]
    assert torch.equal(tokens.layout.rows(rows, tokens.width), expected)
    assert not tokens.fits(tokens.encode(TEXTS)[-1])
    with torch.no_grad():
        theirs = unit(model.encode_text(expected))
    torch.testing.assert_close(encoder.embed_texts(TEXTS, truncate=True), theirs, atol=1e-6, rtol=0)


WRAPPERS = {
    "plain": {},
    "strip_sep_token": {"strip_sep_token": True},
    "canonicalize": {"clean": "canonicalize", "strip_sep_token": True},
    "lower": {"clean": "lower"},
    "clips": {"tokenizer_mode": "clips"},
    "clips, stripped": {"tokenizer_mode": "clips", "strip_sep_token": True, "clean": "canonicalize"},
    "padded left": {"padding_side": "left"},
    "padded and cut left": {"padding_side": "left", "truncation_side": "left", "strip_sep_token": True},
    "padded with the separator": {"pad_token": "[SEP]", "strip_sep_token": True},
}


@pytest.mark.parametrize("settings", WRAPPERS.values(), ids=WRAPPERS)
def test_what_open_clips_wrapper_does(words, settings):
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform

    tokenizer = open_clip.tokenizer.HFTokenizer(words, context_length=WIDTH, **settings)
    agree(clipa(open_clip), image_transform(32, is_train=False), tokenizer)


def test_open_clips_siglip_wrapper(words):
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform

    wrapper = open_clip.tokenizer.SigLipTokenizer
    tokenizer = wrapper.__new__(wrapper)  # its constructor reads a sentencepiece file
    tokenizer.tokenizer, tokenizer.context_length = word_tokenizer(), WIDTH
    agree(clipa(open_clip), image_transform(32, is_train=False), tokenizer)


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_open_clips_own_tokenizer(clean):
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform

    tokenizer = open_clip.tokenizer.SimpleTokenizer(
        context_length=WIDTH, clean=clean, additional_special_tokens=["<region>"]
    )
    agree(clipa(open_clip, vocab_size=49500), image_transform(32, is_train=False), tokenizer)


def test_open_clips_long_words_are_not_remembered():
    open_clip = pytest.importorskip("open_clip")
    from dpad_fast.clip.tokens import from_open_clip

    asked = []

    class Special(dict):
        def get(self, word):
            asked.append(word)
            return dict.get(self, word)

    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    tokenizer.cache = Special(tokenizer.cache)
    tokens, long = from_open_clip(tokenizer, 77), "x" * 200
    asked.clear()
    for _ in range(2):
        tokens.encode([f"zebra {long}"])
    assert asked == ["zebra", long, long]


def test_a_language_before_every_caption(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform
    from transformers import NllbTokenizer

    letters = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *(chr(code) for code in range(33, 127))]
    NllbTokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]).save_pretrained(tmp_path)
    made = []
    for settings in ({"language": "fra_Latn"}, {"src_lang": "fra_Latn"}, {"src_lang": "deu_Latn"}):
        tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=WIDTH, **settings)
        agree(clipa(open_clip), image_transform(32, is_train=False), tokenizer)
        made.append(tokenizer(["a cat"]))
    assert not torch.equal(made[1], made[2])


def test_a_tokenizer_shorter_than_the_model():
    """A text tower that takes any length is given what the tokenizer makes; one that does not is refused by name."""
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform

    transform = image_transform(32, is_train=False)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=WIDTH)
    parts = {
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 2 * WIDTH, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    free = {**parts, "text_cfg": {**parts["text_cfg"], "no_causal_mask": True, "pool_type": "last"}}
    agree(open_clip.CustomTextCLIP(embed_dim=16, **free).eval(), transform, tokenizer)
    with pytest.raises(ValueError, match="context_length 16 is not the model's 32"):
        df.ClipEncoder.from_open_clip(open_clip.CLIP(embed_dim=16, **parts).eval(), transform, tokenizer)


def test_an_unknown_wrapper_is_refused_by_name(words):
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform

    class Prompting(open_clip.tokenizer.HFTokenizer):
        def __call__(self, texts, context_length=None):
            return super().__call__([f"a photo of {text}" for text in texts], context_length)

    with pytest.raises(ValueError, match=r"tokenizer Prompting does more to captions .* 'a photo of a cat' becomes"):
        df.ClipEncoder.from_open_clip(
            clipa(open_clip), image_transform(32, is_train=False), Prompting(words, context_length=WIDTH)
        )


def siglip(tokenizer):
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**tower, "vocab_size": 400, "max_position_embeddings": WIDTH, "projection_size": 32},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(0)
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    processor = SiglipProcessor(image_processor=images, tokenizer=tokenizer)
    return SiglipModel(config).eval(), processor


@pytest.mark.parametrize(
    "settings",
    [{}, {"padding_side": "left"}, {"truncation_side": "left"}, {"model_max_length": 9}],
    ids=["plain", "padded left", "cut left", "shorter than the model"],
)
def test_what_a_processor_gives_a_model_that_attends_to_padding(settings):
    model, processor = siglip(word_tokenizer(**{"model_max_length": WIDTH, **settings}))
    encoder = df.ClipEncoder.from_transformers(model, processor)
    ids = processor(text=TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    rows = [encoder.tokens.truncate(row) for row in encoder.tokens.encode(TEXTS)]
    assert torch.equal(encoder.tokens.layout.rows(rows, encoder.tokens.width), ids)
    with torch.no_grad():
        theirs = unit(model.get_text_features(input_ids=ids))
    torch.testing.assert_close(encoder.embed_texts(TEXTS, truncate=True), theirs, atol=1e-6, rtol=0)


def test_a_processor_that_changes_captions_is_refused_by_name():
    model, processor = siglip(word_tokenizer())

    class Lowering(type(processor)):
        def __call__(self, images=None, text=None, **rest):
            return super().__call__(images=images, text=[one.lower() for one in text], **rest)

    changed = Lowering(image_processor=processor.image_processor, tokenizer=processor.tokenizer)
    with pytest.raises(ValueError, match=r'processor Lowering does more to captions .* "The LEFT'):
        df.ClipEncoder.from_transformers(model, changed)


def roberta(kind, places):
    """A dual encoder with a text tower that counts positions from beyond the padding id."""
    import transformers

    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 400,
        "max_position_embeddings": places,
        "pad_token_id": 1,
    }
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    if kind == "AltCLIP":
        config = transformers.AltCLIPConfig(text_config={**tower, "project_dim": 32}, vision_config=vision)
        return transformers.AltCLIPModel(config).eval()
    if kind == "ChineseCLIP":
        config = transformers.ChineseCLIPConfig(text_config=tower, vision_config=vision, projection_dim=16)
        return transformers.ChineseCLIPModel(config).eval()
    text = getattr(transformers, f"{kind}Config")(**tower)
    image = transformers.CLIPVisionConfig(**vision)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(image, text, projection_dim=16)
    return transformers.VisionTextDualEncoderModel(config).eval()


OFFSETS = {"AltCLIP": 2, "Roberta": 2, "XLMRoberta": 2, "Camembert": 2, "MPNet": 2, "Bert": 0, "ChineseCLIP": 0}


@pytest.mark.parametrize("kind", OFFSETS)
def test_positions_that_cannot_be_used(kind, tiny):
    usable = 16
    model = roberta(kind, usable + OFFSETS[kind])
    tokenizer = word_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    processor = SimpleNamespace(tokenizer=tokenizer, image_processor=tiny[1].image_processor)
    encoder = df.ClipEncoder.from_transformers(model, processor)
    assert encoder.tokens.context == usable
    fits, beyond = " ".join(["cat"] * (usable - 2)), " ".join(["cat"] * (usable - 1))  # 16 and 17 tokens
    with torch.no_grad():
        theirs = unit(model.get_text_features(**tokenizer([fits], return_tensors="pt")))
    torch.testing.assert_close(encoder.embed_texts([fits]), theirs, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"texts\[1\] has 17 tokens, and the model takes 16"):
        encoder.embed_texts([fits, beyond])
    for choice, reason in (("zero", "too-long"), ("truncate", None), ("chunk", None)):
        config = df.RewardConfig.preset("dpad", shape="margin", long_caption=choice)
        texts = [shared.completion(caption=fits), shared.completion(caption=beyond)]
        targets = [df.Target.parse(shared.SOLUTION)] * 2
        batch = df.RewardScorer(config, encoder).score(texts, targets, [shared.picture()] * 2)
        told = [None if value else "not-discriminative" for value in batch.terms["discriminative"]]
        assert batch.reasons == (told[0], reason or told[1])


def test_positions_that_cannot_be_used_in_open_clips_towers(tmp_path):
    """open_clip says max_position_embeddings is its text tower's context, whatever the tokenizer makes."""
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform
    from transformers import RobertaConfig

    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    config = RobertaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=400,
        max_position_embeddings=WIDTH + 1,
        pad_token_id=0,
    )
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        text_cfg={
            "hf_model_name": str(tmp_path),
            "hf_model_pretrained": False,
            "hf_tokenizer_name": str(tmp_path),
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
        },
    ).eval()
    assert model.context_length == WIDTH + 1
    encoder = df.ClipEncoder.from_open_clip(
        model, image_transform(32, is_train=False), open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=77)
    )
    assert encoder.tokens.context == WIDTH
    longest = " ".join(["cat"] * (WIDTH - 2))
    texts = ["a cat", longest]
    with torch.no_grad():
        theirs = unit(model.encode_text(open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=WIDTH)(texts)))
    torch.testing.assert_close(encoder.embed_texts(texts), theirs, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"texts\[0\] has 17 tokens, and the model takes 16"):
        encoder.embed_texts([longest + " cat"])


def test_a_model_that_does_not_say_how_much_it_takes(tiny):
    model = torch.nn.Linear(2, 2)
    model.config = SimpleNamespace(model_type="other", text_config=SimpleNamespace())
    with pytest.raises(ValueError, match="the text configuration of Linear has no max_position_embeddings"):
        df.ClipEncoder.from_transformers(model, tiny[1])


def test_a_token_that_the_model_has_no_row_for_is_a_bad_text():
    model, processor = shared.tiny_clip()
    processor.tokenizer.add_tokens(["zebra"])  # and no model.resize_token_embeddings
    assert len(processor.tokenizer) > model.config.text_config.vocab_size
    encoder = df.ClipEncoder.from_transformers(model, processor)
    with pytest.raises(ValueError, match=r"texts\[1\] cannot be embedded: bad-text"):
        encoder.embed_texts(["a red cat", "a zebra"])
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)
    texts = [shared.completion(caption=caption) for caption in ("a zebra", "a red cat")]
    targets, pictures = [df.Target.parse(shared.SOLUTION)] * 2, [shared.picture()] * 2
    batch = scorer.score(texts, targets, pictures)
    assert (batch.reasons[0], batch.terms["discriminative"][0]) == ("bad-text", 0)
    alone = scorer.score(texts[1:], targets[1:], pictures[1:])
    assert torch.equal(batch.total[1:], alone.total)
