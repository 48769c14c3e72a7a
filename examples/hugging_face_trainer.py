"""EMSA in the Trainer of Hugging Face: a small BERT that says which number comes most often.

```
python examples/hugging_face_trainer.py
```

It needs transformers and accelerate: the extra `integration`.
"""

import sys
import tempfile

import torch

from pontryagin.optim import EMSA, evaluate_averages

try:
    import accelerate  # noqa: F401 # the Trainer needs it
    import transformers
except ImportError as error:
    sys.exit(f"this example needs {error.name}: pip install '.[integration]'")


class Averages(transformers.TrainerCallback):
    """Whatever is evaluated and saved are the averages, a checkpoint in the middle too."""

    def on_train_begin(self, args: object, state: object, control: object, **named: object) -> None:
        """The model and the optimizer that will be stepped."""
        evaluate_averages(named["model"], named["optimizer"])


torch.manual_seed(0)
transformers.logging.set_verbosity_error()
bert = transformers.BertConfig(vocab_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                               intermediate_size=64, max_position_embeddings=16, num_labels=8,
                               hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
model = transformers.BertForSequenceClassification(bert)
tokens = torch.randint(0, 8, (1000, 12))
samples = [{"input_ids": row, "labels": row.mode().values} for row in tokens]

with tempfile.TemporaryDirectory() as folder:
    settings = transformers.TrainingArguments(
        folder, max_steps=100, per_device_train_batch_size=32, per_device_eval_batch_size=100, use_cpu=True,
        lr_scheduler_type="linear", learning_rate=0.03, max_grad_norm=1.0, report_to=[], save_steps=50,
        logging_strategy="no", disable_tqdm=True)
    # the Trainer makes the optimizer and its schedule; EMSA wants the model beside
    trainer = transformers.Trainer(model, settings, train_dataset=samples[:800], eval_dataset=samples[800:],
                                   optimizer_cls_and_kwargs=(EMSA, {"model": model, "lr": 0.03}),
                                   callbacks=[Averages()])
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    saved = transformers.BertForSequenceClassification.from_pretrained(f"{folder}/checkpoint-100")
    after = trainer.evaluate()["eval_loss"]
    are_saved = all(map(torch.equal, saved.parameters(), model.parameters()))

print(f"held-out loss: {before:.3f} before, {after:.3f} after {settings.max_steps} steps")
print(f"The weights of the last checkpoint are {'' if are_saved else 'NOT '}the averages.")
print("The Trainer's own schedule, clipping and evaluation ran with EMSA, and the loss fell by "
      f"{1 - after / before:.0%}.")
