"""The four networks against the published ones: names, shapes, parameter counts, every map."""

import golden
import pytest
import torch

from emadeploy import nets

TOLERANCE = 1e-4
MILLIONS = {"emanet": 6.06, "m_emanet": 11.15, "stl": 11.81, "hps": 4.09}


@pytest.fixture(scope="module", params=golden.NETWORKS)
def model(request, make_spec):
    """Each network at the size of the reference, with the weights of the reference."""
    model = nets.build(make_spec(request.param, size=golden.SIZE))
    shapes = golden.shapes(request.param)
    model.load_state_dict({name: torch.from_numpy(golden.tensor(name, shape)) for name, shape in shapes.items()})
    return model.eval()


def test_names_and_shapes_are_the_published_ones(model):
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == golden.shapes(model.spec.network)


def test_parameter_count_is_the_published_one(model):
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(MILLIONS[model.spec.network], abs=0.005)


def test_every_map_agrees(model, relative_error):
    found = {}

    def keep_ctal(_module, inputs, outputs):
        found.update({f"ctal_in_{task}": feat for task, feat in inputs[0].items()})
        found.update({f"ctal_out_{task}": feat for task, feat in outputs.items()})

    hooks = [attention.register_forward_hook(keep_ctal) for attention in model.attentions().values()]
    with torch.no_grad():
        found.update(model(torch.from_numpy(golden.image(*golden.SIZE))))
    for hook in hooks:
        hook.remove()

    errors = {
        name: relative_error(_subsampled(name, found[name]), torch.from_numpy(expected))
        for name, expected in golden.answers(model.spec.network).items()
    }
    assert len(errors) >= 3
    assert max(errors.values()) < TOLERANCE, errors


def _subsampled(name: str, map_BCHW: torch.Tensor) -> torch.Tensor:
    if name.startswith("ctal_"):
        return map_BCHW[0, ::8, ::4, ::4]
    step = 8 if name.startswith("initial_") else 4
    return map_BCHW[0, :, ::step, ::step]
