"""Language models of transformers that continue a text: attention, experts, state spaces."""

from functools import partial

from benchmarks.zoo.family import Family, configured
from benchmarks.zoo.text import END, PAD, START, VOCABULARY, continued

_IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}


def _family(kind: str, **options: object) -> Family:
    return Family(configured("AutoModelForCausalLM", kind, **_IDS, **options), continued)


_of_sizes = partial(_family, **_SIZES, intermediate_size=128)
_grouped = partial(_of_sizes, num_key_value_heads=2, head_dim=16)

CAUSAL = {
    "gpt2": _family("gpt2", n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "gpt-neox": _of_sizes("gpt_neox"),
    "gpt-j": _family("gptj", n_embd=64, n_layer=2, n_head=4, n_positions=64, rotary_dim=8),
    "opt": _family("opt", **_SIZES, ffn_dim=128, word_embed_proj_dim=64),
    "bloom": _family("bloom", hidden_size=64, n_layer=2, n_head=4),
    "llama": _grouped("llama"),
    "mistral": _grouped("mistral", sliding_window=16),
    "mixtral": _grouped("mixtral", num_local_experts=4),
    "gpt-oss": _grouped("gpt_oss", num_local_experts=4, num_experts_per_tok=2, sliding_window=16),
    "deepseek-v3": _of_sizes("deepseek_v3", moe_intermediate_size=32, num_key_value_heads=4,
                             n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2,
                             first_k_dense_replace=1, q_lora_rank=32, kv_lora_rank=16, qk_rope_head_dim=8,
                             qk_nope_head_dim=8, v_head_dim=16),
    "qwen2": _grouped("qwen2"),
    "qwen3": _grouped("qwen3"),
    "gemma": _grouped("gemma"),
    "gemma3": _grouped("gemma3_text", sliding_window=16, query_pre_attn_scalar=16),
    "phi": _of_sizes("phi"),
    "falcon": _family("falcon", hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                      ffn_hidden_size=128),
    "mpt": _family("mpt", d_model=64, n_layers=2, n_heads=4, expansion_ratio=2, max_seq_len=64),
    "mamba": _family("mamba", hidden_size=64, num_hidden_layers=2, state_size=8),
    "rwkv": _family("rwkv", hidden_size=64, attention_hidden_size=64, intermediate_size=128,
                    num_hidden_layers=2, context_length=64),
}
