"""Train a quantised network with Hugging Face's Trainer: python examples/train_hugging_face.py

Needs `pip install '.[examples]'` in the checkout. The argument is a directory with a folder of
images for each class.
"""

import argparse

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

import tutelage
from tutelage.core.locations import DEMO_MODEL
from tutelage.host.networks import create
from tutelage.host.train.data import load


class Classifier(nn.Module):
    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, pixel_values, labels=None):
        logits = self.student(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", nargs="?", default=DEMO_MODEL / "images")
data = load("folder", parser.parse_args().photos, "train", 28)
rows = [dict(pixel_values=x, labels=y) for x, y in zip(data.inputs(), data.labels, strict=True)]
network = create("mobilenet-small", num_classes=len(data.classes))  # better: train it in float
model = Classifier(tutelage.quantise(network, [{"pixel_values": data.inputs()}], form=data.form))
optimiser = torch.optim.AdamW(tutelage.parameter_groups(model.student, lr=2e-3))
arguments = TrainingArguments("runs/hf", num_train_epochs=3, report_to="none", use_cpu=True)
Trainer(model, arguments, train_dataset=rows, optimizers=(optimiser, None)).train()
tutelage.export(model.student, "models/hugging-face", labels=data.classes)
