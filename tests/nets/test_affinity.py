"""The linear forms of CTAL against the published one, in float64: results and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emadeploy.contract.errors import SpecError
from emadeploy.nets.affinity import attend, attend_by_affinity, neighbours, normalise, respond
from emadeploy.nets.ctal import CTAL
from emadeploy.nets.lean_attention import attend_lean

TOLERANCE = 1e-12
FORMS = {
    "affinity": attend_by_affinity,
    "exact": lambda unit, value, weight, bias: attend(unit, value, weight.flatten(2), bias),
    "lean": lambda unit, value, weight, bias: attend_lean(unit, value, weight.flatten(2), bias),
}


def operands(B, T, C, H, W, dtype=torch.float64):
    """Random features, values, fusion weight and bias, all requiring gradients."""
    shapes = [(B, T, C, H, W), (B, T, C, H, W), (H * W, T, 3, 3), (H * W,)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def result_and_gradients(form, feat, value, weight, bias):
    """The attended features of ``form``, and its gradients with respect to features, values, weight and bias."""
    attended = form(feat, value, weight, bias)
    direction = torch.linspace(-1, 1, attended.numel(), dtype=attended.dtype).reshape(attended.shape).cos()
    return [attended.detach(), *torch.autograd.grad(attended, (feat, value, weight, bias), direction)]


def with_normalise(form):
    return lambda feat, value, weight, bias: form(normalise(feat), value, weight, bias)


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(["exact", "lean"]),
    B=st.integers(1, 2),
    T=st.integers(1, 6),
    C=st.integers(3, 8),
    size=st.sampled_from([(1, 5), (5, 1), (2, 2), (2, 3), (4, 6), (7, 5)]),
    seed=st.integers(0, 2**16),
)
def test_linear_forms_are_the_published_function(form, relative_error, B, T, C, size, seed):
    torch.manual_seed(seed)
    given_operands = operands(B, T, C, *size)
    expected = result_and_gradients(FORMS["affinity"], *given_operands)
    found = result_and_gradients(FORMS[form], *given_operands)
    for name, a, b in zip(("result", "feat", "value", "weight", "bias"), found, expected, strict=True):
        assert relative_error(a, b) < TOLERANCE, name


@pytest.mark.parametrize("form", ["exact", "lean"])
def test_real_width_agrees(form, relative_error):
    given_operands = operands(1, 3, 128, 6, 8)
    expected = result_and_gradients(with_normalise(FORMS["affinity"]), *given_operands)
    found = result_and_gradients(with_normalise(FORMS[form]), *given_operands)
    assert max(map(relative_error, found, expected)) < TOLERANCE


def test_a_pixel_without_features_is_no_pole(relative_error):
    feat, value, weight, bias = operands(1, 2, 4, 3, 3)
    with torch.no_grad():
        feat[:, :, :, 1, 1] = 0
    expected = result_and_gradients(with_normalise(FORMS["affinity"]), feat, value, weight, bias)
    for form in ("exact", "lean"):
        found = result_and_gradients(with_normalise(FORMS[form]), feat, value, weight, bias)
        assert all(torch.isfinite(a).all() for a in found)
        assert max(map(relative_error, found, expected)) < TOLERANCE


def test_hand_written_gradient_is_the_numerical_one():
    assert torch.autograd.gradcheck(FORMS["lean"], operands(2, 2, 2, 2, 3))


@pytest.mark.parametrize("form", ["exact", "lean"])
def test_bfloat16_training_stays_near(form, relative_error):
    feat, value, weight, bias = operands(2, 3, 32, 8, 12, dtype=torch.float32)
    expected = result_and_gradients(with_normalise(FORMS["exact"]), feat, value, weight, bias)

    def under_autocast(*given_operands):
        with torch.autocast("cpu", torch.bfloat16):
            return with_normalise(FORMS[form])(*given_operands).float()

    found = result_and_gradients(under_autocast, feat, value, weight, bias)
    assert all(a.dtype == torch.float32 for a in found)
    assert max(map(relative_error, found, expected)) < 2e-2


def test_one_hot_kernels_are_the_neighbours():
    feat = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    one_hot = torch.eye(9, dtype=torch.float64).reshape(1, 9, 3, 3).expand(3, 9, 3, 3)
    assert torch.equal(respond(feat, one_hot), neighbours(feat))


def test_any_full_kernel_basis_is_exact(relative_error):
    feat, value, weight, bias = (t.detach() for t in operands(1, 3, 8, 5, 4))
    unit = normalise(feat)
    kernels_TR33 = torch.randn(3, 9, 3, 3, dtype=torch.float64)
    mix_PTR = torch.einsum("ptd,tdr->ptr", weight.flatten(2), torch.linalg.inv(kernels_TR33.flatten(2)))
    found = attend(unit, value, mix_PTR, bias, kernels_TR33)
    assert relative_error(found, attend_by_affinity(unit, value, weight, bias)) < 1e-10


def test_fewer_kernels_are_exact_where_the_weights_lie_in_their_span(relative_error):
    feat, value, _, bias = (t.detach() for t in operands(1, 2, 8, 5, 4))
    unit = normalise(feat)
    kernels_TR33 = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    mix_PTR = torch.randn(20, 2, 2, dtype=torch.float64)
    weight_PT33 = torch.einsum("ptr,trij->ptij", mix_PTR, kernels_TR33)
    found = attend(unit, value, mix_PTR, bias, kernels_TR33)
    assert relative_error(found, attend_by_affinity(unit, value, weight_PT33, bias)) < TOLERANCE


@pytest.mark.parametrize("mode", ["grad", "no_grad"])
def test_module_switches_its_form(mode, relative_error):
    tasks = ("semseg", "depth")
    ctal = CTAL(tasks, inputs=16, size=(4, 6)).double().eval()
    torch.nn.init.normal_(ctal.spatial_att.fusion_layer.weight)
    torch.nn.init.normal_(ctal.spatial_att.fusion_layer.bias)
    feats = {task: torch.randn(2, 16, 4, 6, dtype=torch.float64) for task in tasks}
    found = {}
    with torch.set_grad_enabled(mode == "grad"):
        for form in ("exact", "affinity"):
            ctal.spatial_att.form = form
            found[form] = ctal(feats)
    for task in tasks:
        assert found["exact"][task].shape == (2, 128, 8, 12)
        assert relative_error(found["exact"][task], found["affinity"][task]) < TOLERANCE


def test_unknown_form_is_refused():
    with pytest.raises(SpecError, match=r"'fast' is unknown; known: exact, affinity"):
        CTAL(("depth",), inputs=8, size=(2, 2), form="fast")
