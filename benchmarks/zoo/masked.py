"""Encoders of transformers that read a text: hidden tokens, replaced tokens, classes."""

from functools import partial

from benchmarks.zoo.family import Family, configured
from benchmarks.zoo.text import END, PAD, START, VOCABULARY, classified, masked, replaced

_IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
          "max_position_embeddings": 64}


def _family(kind: str, **options: object) -> Family:
    return Family(configured("AutoModelForMaskedLM", kind, **_IDS, **options), masked)


_of_sizes = partial(_family, **_SIZES)

MASKED = {
    "bert": _of_sizes("bert"),
    "roberta": _of_sizes("roberta"),
    "albert": _of_sizes("albert", embedding_size=32),
    "distilbert": Family(configured("AutoModelForSequenceClassification", "distilbert", **_IDS, dim=64,
                                    n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=64),
                         classified),
    "electra": Family(configured("AutoModelForPreTraining", "electra", **_IDS, **_SIZES, embedding_size=32),
                      replaced),
    "deberta-v2": _of_sizes("deberta-v2", relative_attention=True, pos_att_type=["c2p", "p2c"],
                            position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True),
    "modernbert": _of_sizes("modernbert", cls_token_id=START, sep_token_id=END, local_attention=16),
    "fnet": _family("fnet", hidden_size=64, num_hidden_layers=2, intermediate_size=128,
                    max_position_embeddings=64, type_vocab_size=2),
    "perceiver": _family("perceiver", d_model=64, d_latents=64, num_latents=16, num_self_attends_per_block=2,
                         num_self_attention_heads=4, num_cross_attention_heads=4, max_position_embeddings=32,
                         qk_channels=32, v_channels=64),
}
