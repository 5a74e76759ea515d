"""Any causal language model of transformers, small: its own configuration with smaller numbers in it."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 300
POSITIONS = 256
SMALL = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("unpadded_vocab_size", "vocab_size_per_layer_input", "encoder_hash_byte_group_vocab"), VOCABULARY),
    **dict.fromkeys(("shape_vocab_size", "pronunciation_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size_per_layer_input", "zero_expert_num"), 4),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim", "embedding_dim"), 64),
    **dict.fromkeys(("attention_hidden_size", "word_embed_proj_dim", "embedding_size", "lru_width"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "dff", "dim_ff", "ffn_hidden_size"), 96),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_inner", "feed_forward_size"), 96),
    **dict.fromkeys(("intermediate_size_mlp", "dense_intermediate_size", "shared_intermediate_size"), 96),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 80),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), 80),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads", "num_kv_heads", "num_query_groups"), 2),
    **dict.fromkeys(("head_dim", "swa_head_dim", "dim_head", "d_head", "v_head_dim", "global_head_dim"), 16),
    **dict.fromkeys(("kv_channels", "attention_head_dim", "d_kv", "attention_head_size"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "index_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("qk_head_dim",), 16),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank", "laurel_rank", "adapter_rank"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), POSITIONS),
    **dict.fromkeys(("max_target_positions", "model_max_length", "original_max_position_embeddings"), POSITIONS),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "num_expert_group", "topk_group"), 1),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 32),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 16),
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

# What is not in the names of the numbers: which layers are of which kind, and numbers that must fit one another.
_LINEAR, _SSM = ["linear_attention", "full_attention"] * 2, ["mamba", "attention"] * 2
OWN: dict[str, dict[str, Any]] = {
    "axk2": {"index_head_dim": 16, "head_dim": 8},
    "bailing_hybrid": {"layer_types": _LINEAR, "short_conv_kernel_size": 2},
    "bamba": {"attn_layer_indices": [1, 3], "mamba_n_heads": 4, "mamba_d_head": 32},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "cpmant": {"prompt_length": 4},
    "deepseek_v32": {"index_head_dim": 16, "head_dim": 8},
    "dory": {"n_input_layers": 1, "n_output_layers": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "glm_moe_dsa": {"index_head_dim": 16, "head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": _LINEAR},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 4, "head_dim": 32, "n_groups": 1},
    "moshi": {"ffn_dim": 256},
    "nemotron_h": {"layers_block_type": ["mamba", "mlp", "attention", "mlp"], "n_groups": 1},
    "recurrent_gemma": {"intermediate_size": 192},
    "reformer": {"axial_pos_shape": [16, 16], "axial_pos_embds_dim": [32, 32]},
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["mamba", "hybrid"] * 2, "attention_hidden_size": 128, "attention_head_dim": 32},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}


def small_config(kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    """A configuration of a kind whose every number that makes a model large is small, and those inside it."""
    taken = inspect.signature(kind.__init__).parameters
    values = {name: value for name, value in (SMALL | OWN.get(kind.model_type, {})).items() if name in taken}
    if "kv_lora_rank" in taken:
        values["num_key_value_heads"] = SMALL["num_attention_heads"]  # latent attention has one of each
    if "is_decoder" in taken:
        values["is_decoder"] = True  # BERT and its kind look ahead otherwise
    usual = kind() if kind.sub_configs else None
    for name in kind.sub_configs:
        inner = getattr(usual, name, None)
        if isinstance(inner, PreTrainedConfig):
            values[name] = small_config(type(inner)).to_dict()
    return kind(**values)


def small_model(kind: type[PreTrainedConfig], seed: int = 0) -> PreTrainedModel:
    """The causal language model of a kind of configuration, small and with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(small_config(kind)).eval()
        for weight in model.parameters():
            if weight.ndim > 1 and not weight.is_meta and not weight.any():  # a gate that training opens
                nn.init.normal_(weight, std=0.1)
        return model
