"""Learn to tell three flowers by their petals and export the model: made/flowers.onnx."""

from pathlib import Path

import torch

CENTRES = torch.tensor([[1.5, 0.3], [4.3, 1.3], [5.6, 2.0]])  # petals, cm long and wide: setosa, versicolor, virginica

torch.manual_seed(0)
species = torch.arange(3).repeat(200)
petals = CENTRES[species] + torch.randn(600, 2) * torch.tensor([0.6, 0.3])

# Linear discriminant analysis: three normal distributions with the same spread.
means = torch.stack([petals[species == index].mean(dim=0) for index in range(3)])
precision = torch.linalg.inv((petals - means[species]).T.cov())
linear = torch.nn.Linear(2, 3)
linear.weight.data = means @ precision
linear.bias.data = -0.5 * (means @ precision * means).sum(dim=1)

# The softmax goes into the file, so that whoever runs it gets probabilities.
model = torch.nn.Sequential(linear, torch.nn.Softmax(dim=1)).eval()
Path("made").mkdir(exist_ok=True)
torch.onnx.export(
    model,
    (petals[:2],),
    "made/flowers.onnx",
    input_names=["petals"],
    output_names=["probabilities"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),  # any number of rows: otherwise every batch must have two
    external_data=False,  # one file, weights included
    verbose=False,
)
