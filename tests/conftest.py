import os
from pathlib import Path

# Before torch and FAISS load OpenMP: its threads spin while they wait, which on a busy machine makes k-means on a few
# thousand rows fifteen times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Index files are signed; nothing is written into the data folder of whoever runs the tests.
os.environ.setdefault("RESIDUA_SECRET", "of the tests alone")

# What a server in this process says of its connections would stand in what a test hears on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import hypothesis
import pytest
import torch

SHARED = Path(os.environ.get("RESIDUA_SHARED", Path(__file__).resolve().parents[2] / "shared"))

torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile(
    "residua", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("residua"), max_examples=10)
hypothesis.settings.load_profile("residua")


def pytest_collection_modifyitems(items):
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
        if item.get_closest_marker("shared") and not (SHARED / "models").is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no data and models in {SHARED}; set RESIDUA_SHARED"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and trained models; a test that asks for it is marked ``shared``."""
    return SHARED


# Fixtures rather than a module of helpers, since with importmode=importlib tests cannot import one another.

_TEXT = """def add(first, second):
    return first + second

class Counter:
    '''Counts what it is given, and says how often it saw it.'''

    def __init__(self):
        self.seen = {}

    def count(self, name):
        self.seen[name] = self.seen.get(name, 0) + 1
        return self.seen[name]
"""


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A fast byte-level BPE tokenizer of 300 tokens: any text round-trips; 0 is <|endoftext|> (bos, eos), 1 <pad>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<pad>",
        model_max_length=128,
    )


@pytest.fixture(scope="session")
def tiny_model():
    """``tiny_model(kind)``: a new randomly initialised transformers model of width 32 over `tiny_tokenizer`'s 300
    tokens, in evaluation mode, the same weights each time.

    Kinds: gpt2, llama, qwen2, qwen3, opt, gpt_neox, bloom (causal; 128 positions), t5, and any whose config is like
    BART's (seq2seq). Weights are large enough for its predictions to be far from uniform. Options go to its config.
    """
    return _tiny_model


def _tiny_model(kind: str, **options):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128}
    gated = small | {"intermediate_size": 64, "num_key_value_heads": 1, "initializer_range": 0.3}
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    own = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.3},
        "llama": gated,
        "qwen2": gated,
        "qwen3": gated | {"head_dim": 16},
        "opt": small | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
        "gpt_neox": small | {"intermediate_size": 64, "initializer_range": 0.3},
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.3},
        "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 1},
    }
    like_bart = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128}
    like_bart |= {"init_std": 0.3, "decoder_start_token_id": 0, "forced_eos_token_id": None}
    tokens = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    config = AutoConfig.for_model(kind, **{**tokens, **own.get(kind, layers | like_bart), **options})
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return auto.from_config(config).eval()
