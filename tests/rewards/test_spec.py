"""A scorer travels by its specification, and what a fork copies of one works or says why not."""

import dataclasses
import pickle
import subprocess
import sys

import pytest
import torch

import dpad_fast as df
from dpad_fast.testing import rewards as shared

CONFIG = df.RewardConfig.preset("dpad", shape="margin", weights={"iou": 2})
COUNT = 12

# Runs beside the tests, for a child that hangs must not take them along. Prints what each process got. How long a child
# may take is counted in batches of its parent, which a loaded machine slows down as much.
CHILD = """
import faulthandler, os, pickle, signal, sys, threading, time, multiprocessing, warnings
import torch
from test_spec import batch, COUNT
warnings.simplefilter("ignore")
scorer = pickle.load(open(sys.argv[1], "rb"))
first = scorer.score(*batch()).total
print("rebuilt", first.numpy().tobytes().hex())
torch.randn(1500, 1500) @ torch.randn(1500, 1500)  # torch's threads exist by now
pending = scorer.score_async(*batch())
stop, scored = threading.Event(), 0
faulthandler.register(signal.SIGUSR1)

def work():
    global scored
    while not stop.is_set():
        scorer.encoder.cache.clear()
        scorer.score(*batch(6))
        scored += 1

def wait(child, ended):
    limit = scored + 500
    while not ended():
        time.sleep(0.01)
        if scored > limit:
            os.kill(child, signal.SIGUSR1)  # says on standard error where it hangs
            time.sleep(1)
            os.kill(child, signal.SIGKILL)
            limit = float("inf")

def told(scores):
    return scores.total.numpy().tobytes().hex()

def child(label):
    lines = []
    try:
        pending.result()
    except RuntimeError as error:
        lines.append("refused" if "begun by the process that this one was forked from" in str(error) else str(error))
    lines.append(told(scorer.score(*batch())))
    scorer.encoder.cache.clear()
    scorer.encoder.cache.store._begin_again("a test")
    lines.append(told(scorer.score(*batch())))
    lines.append(told(scorer.score_async(*batch()).result()))
    # One write for all, which a pipe does not mix with another's.
    os.write(1, "".join(f"{label} {line}\\n" for line in lines).encode())

worker = threading.Thread(target=work)
worker.start()
sys.stdout.flush()
children = []
for _ in range(2):
    children.append(os.fork())
    if children[-1] == 0:
        child("fork")
        os._exit(0)
process = multiprocessing.get_context("fork").Process(target=child, args=("multiprocessing",))
process.start()
wait(process.pid, lambda: not process.is_alive())
for one in children:
    wait(one, lambda: os.waitpid(one, os.WNOHANG)[0] == one)
stop.set()
worker.join()
print("parent", scorer.score(*batch()).total.numpy().tobytes().hex())
"""


def batch(count=COUNT):
    captions = [f"the {shared.WORDS[i % len(shared.WORDS)]} near the table" for i in range(count)]
    texts = [shared.completion(caption=caption) for caption in captions]
    shown = [shared.picture(i % 7, (400, 300)) for i in range(count)]
    return texts, [df.Target.parse(shared.SOLUTION)] * count, shown


def total(scorer):
    return scorer.score(*batch()).total


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return df.ScorerSpec(config=CONFIG, encoder="shapes", threads=2, cache=tmp_path_factory.mktemp("cache"))


def test_in_another_process_and_after_forks(spec, tmp_path, pytestconfig):
    """Bitwise the same where it is rebuilt; and forked children score, with the parent at work, or refuse by name."""
    scorer = spec.build()
    expected = total(scorer).numpy().tobytes().hex()
    (tmp_path / "scorer").write_bytes(pickle.dumps(scorer))
    paths = [str(pytestconfig.rootpath), str(pytestconfig.rootpath / "tests" / "rewards")]
    code = f"import sys; sys.path[:0] = {paths!r}\n{CHILD}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "scorer")], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if line)
    ways = ["parent", "rebuilt", *["fork"] * 6, *["multiprocessing"] * 3]
    refused = ["fork refused"] * 2 + ["multiprocessing refused"]
    assert lines == sorted([f"{way} {expected}" for way in ways] + refused), done.stderr


def test_a_spec_is_plain_data(spec):
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert again.config == CONFIG
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.encoder = None
    assert df.ScorerSpec(config=CONFIG, encoder="shapes") == df.ScorerSpec(CONFIG, "shapes", device=torch.device("cpu"))


def test_every_field_reaches_the_encoder(tmp_path):
    scorer = df.ScorerSpec(
        config=CONFIG,
        encoder="shapes",
        device="cpu",
        precision="float32",
        threads=1,
        cache=tmp_path / "c",
        rows_at_once=500,
    ).build()
    encoder = scorer.encoder
    assert (scorer.config, encoder.precision, encoder.threads) == (CONFIG, "float32", 1)
    assert encoder.device == torch.device("cpu")
    assert encoder._forwards[True]._clip.rows_at_once == 500
    assert encoder.cache.store.path.parent == tmp_path / "c"
    with pytest.raises(ValueError, match="random weights"):
        df.ScorerSpec(CONFIG, "ViT-B-32", backend="open_clip").build()
    with pytest.raises(ValueError, match="device 'nowhere' is none that torch knows"):
        df.ScorerSpec(CONFIG, "shapes", device="nowhere").build()


def test_folders_are_made_absolute(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = df.ScorerSpec(CONFIG, "model", cache="cache")
    assert (spec.encoder, spec.cache) == (str(tmp_path / "model"), str(tmp_path / "cache"))
    assert df.ScorerSpec(CONFIG, "openai/clip-vit-base-patch32").encoder == "openai/clip-vit-base-patch32"


def test_scorers_that_travel_and_those_that_do_not(tiny):
    geometry = df.RewardConfig(terms=("iou",))
    for scorer in (df.RewardScorer(geometry), df.ScorerSpec(geometry).build()):
        again = pickle.loads(pickle.dumps(scorer))
        assert again.config == geometry
        assert again.score([shared.completion()], [df.Target.parse(shared.SOLUTION)]).total.tolist() == [1.0]
    encoder = df.ClipEncoder.from_transformers(*tiny)
    with pytest.raises(TypeError, match=r"RewardScorer cannot be pickled.*dpad_fast\.ScorerSpec"):
        pickle.dumps(df.RewardScorer(CONFIG, encoder))
    with pytest.raises(TypeError, match=r"cannot be pickled.*dpad_fast\.ScorerSpec"):
        pickle.dumps(encoder)
    built = df.ScorerSpec(CONFIG, "shapes", precision="float32").build()
    built.config = CONFIG.replace(tau=0.5)
    assert pickle.loads(pickle.dumps(built)).config.tau == 0.5
    built.encoder = encoder  # no longer what the spec says
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(built)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": "dpad", "encoder": "shapes"}, "config must be a RewardConfig, got str"),
        ({"config": CONFIG}, "encoder is missing: the term 'discriminative' needs one"),
        ({"config": CONFIG, "encoder": 5}, "encoder must be a name or a folder, got int"),
        ({"config": CONFIG, "encoder": "shapes", "cache": 5}, "cache must be a folder, got int"),
        ({"config": CONFIG, "encoder": "shapes", "cache": ""}, "cache is empty"),
        ({"config": CONFIG, "encoder": ""}, "encoder is empty"),
        ({"config": CONFIG, "encoder": "shapes", "device": None}, "device must be a name such as 'cpu'.*got None"),
        ({"config": CONFIG, "encoder": "shapes", "device": ""}, "device must be a name"),
        *(
            ({"config": CONFIG, "encoder": "shapes", name: value}, f"{name} must be .*, got {value!r}$")
            for name in ("threads", "rows_at_once")
            for value in (0, -1, "2", True, 2.5)
        ),
    ],
)
def test_fields_of_the_wrong_kind(settings, message):
    with pytest.raises(ValueError, match=message):
        df.ScorerSpec(**settings)


def test_an_encoder_on_a_gpu_refuses_after_a_fork(tiny, monkeypatch):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    monkeypatch.setattr(encoder, "device", torch.device("cuda"))
    monkeypatch.setattr(encoder, "_process", encoder._process + 1)
    with pytest.raises(RuntimeError, match=r"was made before this process was forked.*ScorerSpec"):
        encoder.embed_texts(["a cat"])


def test_equal_specs_hash_alike(tmp_path):
    def make(**changes):
        return df.ScorerSpec(df.RewardConfig.preset("dpad", weights={"iou": 2}), **{"encoder": "shapes", **changes})

    assert hash(make()) == hash(make())
    changed = [make(threads=2), make(cache=tmp_path), make(encoder="x/y"), df.ScorerSpec(CONFIG, "shapes")]
    assert len({make(), make(), *changed}) == 5
    orders = ({"iou": 2, "box_l1": 3}, {"box_l1": 3, "iou": 2})
    first, second = (df.ScorerSpec(CONFIG.replace(weights=weights), "shapes") for weights in orders)
    assert first == second
    assert hash(first) == hash(second)
    for name in ("dpad", "dpad-released", "seg-zero", "vision-reasoner"):
        assert hash(df.RewardConfig.preset(name)) == hash(df.RewardConfig.preset(name))
    assert hash(CONFIG.replace(iou_threshold=1)) == hash(CONFIG.replace(iou_threshold=1.0))


@pytest.mark.parametrize("name", ["shapes", "clip"])
def test_a_shipped_name_goes_before_a_folder(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert df.ScorerSpec(CONFIG, name).encoder == name
    assert df.ScorerSpec(CONFIG, f"./{name}").encoder == str(tmp_path / name)
