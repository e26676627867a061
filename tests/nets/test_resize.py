"""CTAL's weights at another image size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError
from emadeploy.nets.resize import resize_fusion, resize_state_dict

extents = st.tuples(st.integers(1, 12), st.integers(1, 12))


def fusion(T, H, W):
    return torch.randn(H * W, T, 3, 3, dtype=torch.float64), torch.randn(H * W, dtype=torch.float64)


@given(T=st.integers(1, 6), hw=extents)
def test_same_size_changes_nothing(T, hw):
    weight, bias = fusion(T, *hw)
    new_weight, new_bias = resize_fusion(weight, bias, hw, hw)
    assert torch.equal(new_weight, weight)
    assert torch.equal(new_bias, bias)


@settings(deadline=None)
@given(T=st.integers(1, 6), old=extents, new=extents)
def test_kernels_that_are_alike_stay_and_scale_with_the_pixels(T, old, new):
    kernel = torch.randn(1, T, 3, 3, dtype=torch.float64)
    P_old, P_new = old[0] * old[1], new[0] * new[1]
    weight, bias = resize_fusion(
        kernel.expand(P_old, T, 3, 3), torch.full((P_old,), 2.0, dtype=torch.float64), old, new
    )
    assert weight.shape == (P_new, T, 3, 3)
    torch.testing.assert_close(weight * P_new / P_old, kernel.expand_as(weight))
    torch.testing.assert_close(bias * P_new / P_old, torch.full((P_new,), 2.0, dtype=torch.float64))


def test_every_channel_is_resized_as_its_own_map():
    T, old, new = 2, (4, 6), (6, 9)
    weight, bias = fusion(T, *old)
    new_weight, new_bias = resize_fusion(weight, bias, old, new)
    scale = (old[0] * old[1]) / (new[0] * new[1])

    def as_map(values, hw):
        return torch.nn.functional.interpolate(values.reshape(1, 1, *hw), size=new, mode="bilinear").flatten() * scale

    torch.testing.assert_close(new_weight[:, 1, 0, 2], as_map(weight[:, 1, 0, 2], old))
    torch.testing.assert_close(new_bias, as_map(bias, old))


def test_weights_of_another_grid_are_refused():
    weight, bias = fusion(3, 4, 6)
    with pytest.raises(ArtifactError, match=r"hold 24 kernels and 24 biases, expected one each for the 4 x 5 = 20"):
        resize_fusion(weight, bias, (4, 5), (8, 10))


@pytest.mark.parametrize("network", ["emanet", "m_emanet", "hps"])
def test_state_dict_moves_to_another_image_size(make_spec, network):
    small, large = (32, 64), (64, 96)
    state = nets.build(make_spec(network, size=small)).state_dict()
    resized = resize_state_dict(state, small, large)
    model = nets.build(make_spec(network, size=large))
    model.load_state_dict(resized)  # strict: every name and shape
    changed = [name for name in state if resized[name] is not state[name]]
    assert len(changed) == (0 if network == "hps" else 2)
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 3, *large))["depth"].isfinite().all()


def test_attended_features_keep_their_size_at_twice_the_resolution(make_spec):
    """The same scene at another resolution: attended features stay alike, which the scale by P_old / P_new is for."""
    from emadeploy.nets.affinity import attend, normalise

    feat, value = (torch.rand(1, 2, 4, 6, 8, dtype=torch.float64) for _ in range(2))
    weight, bias = torch.rand(48, 2, 3, 3, dtype=torch.float64), torch.rand(48, dtype=torch.float64)
    larger = [t.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4) for t in (feat, value)]
    new_weight, new_bias = resize_fusion(weight, bias, (6, 8), (12, 16))
    before = attend(normalise(feat), value, weight.flatten(2), bias)
    after = attend(normalise(larger[0]), larger[1], new_weight.flatten(2), new_bias)
    assert after.norm(dim=2).mean().item() == pytest.approx(before.norm(dim=2).mean().item(), rel=0.1)
