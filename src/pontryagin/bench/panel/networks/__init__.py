"""The networks by name, in the order of tables: a file for each kind of data."""

from pontryagin.bench.panel.network import Network
from pontryagin.bench.panel.networks.fields import FIELDS
from pontryagin.bench.panel.networks.generative import GENERATIVE
from pontryagin.bench.panel.networks.graphs import GRAPHS
from pontryagin.bench.panel.networks.images import IMAGES
from pontryagin.bench.panel.networks.perceptrons import PERCEPTRONS
from pontryagin.bench.panel.networks.text import TEXT
from pontryagin.bench.panel.networks.tuned_on import TUNED_ON
from pontryagin.bench.panel.networks.vectors import VECTORS

NETWORKS: dict[str, Network] = {one.name: one for one in (
    *PERCEPTRONS, *IMAGES, *GENERATIVE, *TEXT, *VECTORS, *FIELDS, *GRAPHS, *TUNED_ON)}
SUBSET = ("mlp-2", "mlp-20-layer-norm", "mlp-2-batch-8", "resnet-batch-norm", "vit", "vae", "gru", "llama",
          "regression-x1000", "sine-picture", "physics-informed")
"""About a third, of all kinds."""

__all__ = ["NETWORKS", "SUBSET", "Network"]
