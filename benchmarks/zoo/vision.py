"""Models of transformers that look at images."""

from functools import partial

from torch import Tensor, nn

from benchmarks.zoo.family import Batch, Family, configured
from benchmarks.zoo.pictures import CLASSES, captioned, labelled
from benchmarks.zoo.text import END, PAD, START, VOCABULARY

_TRANSFORMER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def _family(kind: str, **options: object) -> Family:
    return Family(configured("AutoModelForImageClassification", kind, num_labels=CLASSES, **options),
                  labelled)


_of_patches = partial(_family, **_TRANSFORMER, image_size=32, patch_size=8)


def _contrast(model: nn.Module, batch: Batch) -> Tensor:
    return model(**batch, return_loss=True).loss


def _pair(kind: str) -> Family:
    text = {**_TRANSFORMER, "vocab_size": VOCABULARY, "max_position_embeddings": 8, "pad_token_id": PAD,
            "bos_token_id": START,
            "eos_token_id": END, "projection_size": 64}
    image = {**_TRANSFORMER, "image_size": 32, "patch_size": 8}
    return Family(configured("AutoModel", kind, text_config=text, vision_config=image), captioned, _contrast)


VISION = {
    "vit": _of_patches("vit"),
    "deit": Family(configured("DeiTForImageClassification", "deit", num_labels=CLASSES, **_TRANSFORMER,
                              image_size=32, patch_size=8), labelled),
    "dinov2": _of_patches("dinov2", mlp_ratio=2),
    "swin": _family("swin", image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
                    window_size=4),
    "convnext": _family("convnext", hidden_sizes=[16, 32], depths=[2, 2], num_stages=2),
    "convnext-v2": _family("convnextv2", hidden_sizes=[16, 32], depths=[2, 2], num_stages=2),
    "resnet": _family("resnet", embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic"),
    "regnet": _family("regnet", embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], groups_width=8),
    "mobilenet-v2": _family("mobilenet_v2", depth_multiplier=0.25, image_size=32),
    "segformer": _family("segformer", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1],
                         hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2],
                         num_attention_heads=[1, 2], mlp_ratios=[2, 2]),
    # These two start with scales of batch norms of 0.02, so that their signals vanish: nothing learns at
    # once, nor must it break.
    "mobilevit": _family("mobilevit", image_size=32, hidden_sizes=[24, 32, 40],
                         neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 64]),
    "efficientnet": _family("efficientnet", image_size=32, width_coefficient=0.25, depth_coefficient=0.25,
                            hidden_dim=320),
    "clip": _pair("clip"),
    "siglip": _pair("siglip"),
}
