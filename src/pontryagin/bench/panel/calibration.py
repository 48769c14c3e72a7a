"""How fast the networks are, measured: the iterations of a run follow from this table alone."""

PACES: dict[str, tuple[float, float, float, float, float, float]] = {
    "linear": (1700, 1.3, 1.1, 1.4, 1.1, 2.3),
    "mlp-2": (760, 1.6, 2.2, 2.3, 1.1, 2.7),
    "mlp-2-batch-8": (1200, 1.8, 2.4, 3.3, 1.2, 3.7),
    "mlp-2-batch-2": (1200, 1.9, 2.7, 2.3, 1.3, 3.7),
    "mlp-2-wide": (71, 1.9, 25, 1.5, 1.2, 7.7),
    "mlp-3-sigmoid": (790, 1.6, 2.2, 2.4, 1.2, 3),
    "mlp-10": (490, 1.4, 2.4, 3, 1.2, 2.9),
    "mlp-10-tanh": (420, 1.4, 2.2, 2.2, 1.2, 2.7),
    "mlp-20-layer-norm": (170, 1.4, 2.1, 2.6, 1.1, 2.2),
    "residual-mlp-100": (50, 2.3, 2.3, 2.9, 1.1, 2.1),
    "resnet-batch-norm": (32, 1.1, 1, 1.1, 1, 1.1),
    "resnet-group-norm": (36, 1.1, 1, 1.1, 1, 1.1),
    "resnet-no-norm": (22, 1.1, 1, 1.1, 1, 1.1),
    "vgg": (58, 1.1, 1.2, 1.3, 1, 1.2),
    "convnext": (19, 1.3, 1.1, 1.2, 1, 1.1),
    "vit": (38, 1.2, 1.2, 1.3, 1, 1.2),
    "vit-norm-last": (39, 1.2, 1.2, 1.2, 1, 1.2),
    "u-net": (33, 1.3, 1.1, 1.3, 1, 1.2),
    "vae": (170, 1.6, 4.2, 4, 1.1, 4.3),
    "gru": (55, 1.3, 1.1, 1.3, 1, 1.2),
    "lstm": (96, 1.4, 1.3, 2.1, 1, 1.4),
    "gpt2": (25, 1.5, 1.3, 1.7, 1, 1.3),
    "llama": (22, 1.4, 1.3, 1.4, 1, 1.2),
    "regression": (1900, 1.7, 2.1, 2.6, 1.2, 1.9),
    "regression-x1000": (1900, 1.7, 2.1, 2.6, 1.2, 1.9),
    "regression-over-1000": (1900, 1.7, 2, 2.2, 1.3, 1.9),
    "regression-6-silu": (960, 1.5, 2.2, 2.4, 1.2, 2.3),
    "tabular-heavy-tails": (850, 1.6, 2.5, 2.9, 1.3, 2.1),
    "sine-picture": (100, 1.4, 1.2, 1.3, 1, 1.1),
    "physics-informed": (260, 1.3, 1.2, 1.4, 1.1, 1.2),
    "graph-convolution": (210, 1.2, 1.1, 1.1, 1, 1.1),
    "cnn": (21, 1.2, 1, 1.3, 1, 1.3),
    "mlp": (270, 1.7, 4, 3.2, 1.2, 3.1),
    "autoencoder": (23, 1.8, 8.9, 2.7, 1.1, 4.3),
    "transformer": (22, 1.5, 1.4, 1.6, 1, 1.4),
}
"""By network: iterations of AdamW (fused) in a second of one core, and what an iteration costs beside it, at
least 1, with COSTS. A run of s seconds has s times as many iterations, by a method that costs c one in c of
these: so that all have equal seconds on the machine of this table, and equal runs are equal everywhere."""
COSTS = ("emsa", "muon", "soap", "schedule-free", "shampoo")


def iterations(network: str, method: str, seconds: float) -> int:
    """Of a run, at least 1."""
    pace, *costs = PACES[network]
    return max(1, round(pace * seconds / dict(zip(COSTS, costs, strict=True)).get(method, 1.0)))
