"""Train a quantised network in a loop of your own: python examples/train_own_loop.py photos/

`photos/` has a folder of images for each class. The same loop trains the network in float first.
"""

import argparse

import torch
from torch.utils.data import DataLoader, TensorDataset

import tutelage
from tutelage.core.locations import DEMO_MODEL
from tutelage.host.networks import create
from tutelage.host.train.data import load

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", nargs="?", default=DEMO_MODEL / "images")
options = parser.parse_args()
data = load("folder", options.photos, "train", 28)
loader = DataLoader(TensorDataset(data.inputs(), data.labels), 32, shuffle=True)


def train(network, parameters, epochs):
    optimiser = torch.optim.Adam(parameters, lr=2e-3)
    for epoch in range(epochs):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(network.train()(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


network = create("densenet-small", num_classes=len(data.classes))
train(network, network.parameters(), epochs=8)
student = tutelage.quantise(network, loader, form=data.form)  # student.freeze_norms(True) helps
train(student, tutelage.parameter_groups(student, lr=5e-4), epochs=2)  # before long trainings end
torch.save(student.state_dict(), "student.pt")  # load_state_dict takes it up again
tutelage.export(student, "models/own-loop", labels=data.classes)
