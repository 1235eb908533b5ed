"""Train a quantised network in your own loop: python examples/train_own_loop.py photos/

`photos/` has a folder of images for each class. The same loop first trains the network in float.
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
student = tutelage.quantise(network, loader, form=data.form)
train(student, tutelage.parameter_groups(student, lr=5e-4), epochs=2)
torch.save(student.state_dict(), "student.pt")  # resume with student.load_state_dict
tutelage.export(student, "models/own-loop", labels=data.classes)
