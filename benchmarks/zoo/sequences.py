"""Models of transformers from one sequence to another: text, speech, series."""

from functools import partial

from benchmarks.zoo.family import Family, configured
from benchmarks.zoo.signals import dated_forecast, forecast, spectrogram, spoken
from benchmarks.zoo.text import END, FIRST, PAD, START, VOCABULARY, copied

_IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END,
        "decoder_start_token_id": START}
_LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
           "decoder_attention_heads": 4,
           "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}


def _family(kind: str, **options: object) -> Family:
    return Family(configured("AutoModelForSeq2SeqLM", kind, **_IDS, **options), copied)


_of_layers = partial(_family, **_LAYERS, d_model=64, max_position_embeddings=64, forced_eos_token_id=None)

SEQUENCES = {
    "t5": _family("t5", d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
    "bart": _of_layers("bart"),
    "pegasus": _of_layers("pegasus"),
    "marian": _of_layers("marian", decoder_vocab_size=VOCABULARY),
    "whisper": Family(configured("AutoModelForSpeechSeq2Seq", "whisper", **_IDS, **_LAYERS, d_model=64,
                                 num_mel_bins=16, max_source_positions=32, max_target_positions=32),
                      spectrogram),
    "wav2vec2": Family(configured("AutoModelForCTC", "wav2vec2", vocab_size=FIRST + 8, hidden_size=64,
                                  num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
                                  conv_dim=(32, 32, 32), conv_kernel=(10, 5, 3), conv_stride=(5, 4, 2),
                                  num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
                                  apply_spec_augment=False, ctc_loss_reduction="mean"), spoken),
    "patchtst": Family(configured("PatchTSTForPrediction", "patchtst", num_input_channels=3,
                                  context_length=48, patch_length=8, patch_stride=4, d_model=32,
                                  num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
                                  prediction_length=8), forecast),
    "time-series-transformer": Family(
        configured("TimeSeriesTransformerForPrediction", "time_series_transformer", **_LAYERS, d_model=32,
                   input_size=3, context_length=41, prediction_length=8, num_time_features=1),
        dated_forecast),
}
