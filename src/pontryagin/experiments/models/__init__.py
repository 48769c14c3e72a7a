"""Ready networks. Those that are an nn.Sequential have one child a stage, so that every method can train them."""

from pontryagin.experiments.models.autoencoder import autoencoder
from pontryagin.experiments.models.character_model import CharacterModel
from pontryagin.experiments.models.mlp import mlp
from pontryagin.experiments.models.normalized_mlp import normalized_mlp
from pontryagin.experiments.models.residual_cnn import ResidualStep, residual_cnn

__all__ = ["CharacterModel", "ResidualStep", "autoencoder", "mlp", "normalized_mlp", "residual_cnn"]
