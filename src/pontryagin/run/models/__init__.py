"""Ready networks. An nn.Sequential has one child a stage, so that every method can train it."""

from pontryagin.run.models.character_model import CharacterModel
from pontryagin.run.models.fully_connected import autoencoder, mlp, normalized_mlp
from pontryagin.run.models.residual_cnn import ResidualStep, residual_cnn

__all__ = ["CharacterModel", "ResidualStep", "autoencoder", "mlp", "normalized_mlp", "residual_cnn"]
