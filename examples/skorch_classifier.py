"""EMSA in skorch's NeuralNetClassifier, cross-validated by scikit-learn, on handwritten digits.

```
python examples/skorch_classifier.py
```

It needs skorch: the extra `integration`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from torch import nn

from pontryagin.optim import EMSA, evaluate_averages

try:
    from skorch import NeuralNetClassifier
except ImportError as error:
    sys.exit(f"this example needs {error.name}: pip install '.[integration]'")


class EMSAClassifier(NeuralNetClassifier):
    """EMSA is made of a module, where skorch gives an optimizer parameters; so a method is overridden."""

    def initialize_optimizer(self, *args: object, **kwargs: object) -> "EMSAClassifier":
        """EMSA on the module, with skorch's lr and its `optimizer__` settings; its averages predict, are
        validated and saved."""
        self.optimizer_ = EMSA(self.module_, lr=self.lr, **self.get_params_for("optimizer"))
        evaluate_averages(self.module_, self.optimizer_)
        return self


def network() -> nn.Module:
    """Two layers, the output as logits."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
classifier = EMSAClassifier(network, criterion=nn.CrossEntropyLoss, lr=0.03, max_epochs=5, batch_size=64,
                            optimizer__momentum=0.8, train_split=None, verbose=0)
scores = cross_val_score(classifier, (x / 16).astype("float32"), y, cv=3)
print("accuracy in three folds:", ", ".join(f"{score:.1%}" for score in scores))
print(f"scikit-learn cloned, trained and scored it three times; the mean is {scores.mean():.1%}.")
