"""EMSA in a LightningModule, on handwritten digits.

```
python examples/lightning_module.py
```

It needs lightning: the extra `integration`.
"""

import logging
import sys
import warnings

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pontryagin.optim import EMSA

try:
    import lightning
except ImportError as error:
    sys.exit(f"this example needs {error.name}: pip install '.[integration]'")


class Classifier(lightning.LightningModule):
    """Two layers; the optimizer is made on the network, its averages are shown while it is validated."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.steps = steps

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """The loss of a batch."""
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor]) -> None:
        """The share of digits that are classified rightly."""
        self.log("accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def on_validation_start(self) -> None:
        """The averages into the network."""
        self.emsa.eval()

    def on_validation_end(self) -> None:
        """The weights again."""
        self.emsa.train()

    def configure_optimizers(self) -> dict[str, object]:
        """EMSA, its rate falling linearly to 0."""
        self.emsa = EMSA(self.network)
        schedule = torch.optim.lr_scheduler.LambdaLR(self.emsa, lambda step: max(0.0, 1 - step / self.steps))
        return {"optimizer": self.emsa, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


warnings.filterwarnings("ignore")  # Lightning's advice on workers
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.manual_seed(0)
x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(x.float() / 16, y)
train, test = torch.utils.data.random_split(data, [1437, 360])
batches = torch.utils.data.DataLoader(train, 64, shuffle=True, drop_last=True)
epochs = 5
classifier = Classifier(epochs * len(batches))
trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
                            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
trainer.fit(classifier, batches, torch.utils.data.DataLoader(test, 360))
found = trainer.callback_metrics["accuracy"].item()
print(f"test accuracy of the averages after {epochs} epochs: {found:.1%}")
print("Lightning stepped EMSA and its schedule; two hooks were enough to validate the averages.")
