"""Train a quantised network with PyTorch Lightning: python examples/train_lightning.py photos/

Needs `pip install '.[examples]'` in the checkout. `photos/` has a folder of images for each class.
"""

import argparse

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tutelage
from tutelage.core.locations import DEMO_MODEL
from tutelage.host.networks import create
from tutelage.host.train.data import load


class Module(lightning.LightningModule):
    def __init__(self, student):
        super().__init__()
        self.student = student

    def training_step(self, batch, index):
        images, labels = batch
        return nn.functional.cross_entropy(self.student(images), labels)

    def configure_optimizers(self):
        return torch.optim.Adam(tutelage.parameter_groups(self.student, lr=2e-3))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", nargs="?", default=DEMO_MODEL / "images")
data = load("folder", parser.parse_args().photos, "train", 28)
loader = DataLoader(TensorDataset(data.inputs(), data.labels), 32, shuffle=True)
network = create("mobilenet-small", num_classes=len(data.classes))  # better: train it in float
module = Module(tutelage.quantise(network, loader, form=data.form).train())
lightning.Trainer(max_epochs=3, accelerator="cpu", logger=False).fit(module, loader)
tutelage.export(module.student, "models/lightning", labels=data.classes)
