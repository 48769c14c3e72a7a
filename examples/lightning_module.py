"""EMSA in a LightningModule, on handwritten digits.

```
python examples/lightning_module.py
```

It needs lightning: the extra `integration`.
"""

import logging
import sys
import tempfile
import warnings

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pontryagin.optim import EMSA, evaluate_averages

try:
    import lightning
except ImportError as error:
    sys.exit(f"this example needs {error.name}: pip install '.[integration]'")


class Classifier(lightning.LightningModule):
    """Two layers; the optimizer is made on the network, and its averages are validated and saved."""

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

    def configure_optimizers(self) -> dict[str, object]:
        """EMSA, its rate falling linearly to 0."""
        emsa = EMSA(self.network)
        evaluate_averages(self.network, emsa)  # in validation, test, prediction and every checkpoint
        schedule = torch.optim.lr_scheduler.LambdaLR(emsa, lambda step: max(0.0, 1 - step / self.steps))
        return {"optimizer": emsa, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


warnings.filterwarnings("ignore")  # Lightning's advice on workers
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.manual_seed(0)
x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(x.float() / 16, y)
train, test = torch.utils.data.random_split(data, [1437, 360])
batches = torch.utils.data.DataLoader(train, 64, shuffle=True, drop_last=True)
epochs = 5
classifier = Classifier(epochs * len(batches))
with tempfile.TemporaryDirectory() as folder:
    saved = lightning.pytorch.callbacks.ModelCheckpoint(folder, every_n_train_steps=epochs * len(batches))
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[saved],
                                enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
    trainer.fit(classifier, batches, torch.utils.data.DataLoader(test, 360))
    found = trainer.callback_metrics["accuracy"].item()
    network = Classifier.load_from_checkpoint(saved.last_model_path or saved.best_model_path, steps=0).network
inputs, targets = test[:]
again = (network(inputs).argmax(1) == targets).float().mean().item()
print(f"test accuracy of the averages after {epochs} epochs: {found:.1%}; of the checkpoint: {again:.1%}")
print("Lightning stepped EMSA and its schedule, validated the averages and "
      f"{'saved them' if abs(again - found) < 1e-6 else 'DID NOT SAVE THEM'}.")
