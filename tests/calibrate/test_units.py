"""Which section a node belongs to, and which nodes stay together."""

import pytest

from emadeploy.calibrate.units import Unit, nodes_of, section_of, units_of
from emadeploy.contract.errors import SpecError

CTAL = "affinity_learning_module"


@pytest.mark.parametrize(
    ("node", "section"),
    [
        ("backbone.0.stage4.1.branches.2.0.conv1/Conv", "backbone"),
        ("backbones.depth.0.conv1/Conv", "backbone.depth"),
        ("initial_task_prediction_heads.layers.depth.0.conv1/Conv", "initial.depth"),
        ("scale_2.refinement.normals.0.conv1/Conv", "initial.normals"),
        ("fpm_scale_1.non_linear.2/Conv", "propagation"),
        ("scale_fusion.semseg.0/Conv", "propagation"),
        (f"{CTAL}.conv_in.depth/Conv", "ctal.intra"),
        ("ctal.conv_in.depth/Conv", "ctal.intra"),
        (f"{CTAL}.spatial_att.normalise/Mul", "ctal.intra"),
        (f"{CTAL}.spatial_att/ReduceL2_2", "ctal.intra"),
        (f"{CTAL}.spatial_att.keys.filter.0.1/Conv", "ctal.inter"),
        (f"{CTAL}.spatial_att.mix.4/Mul_1", "ctal.inter"),
        (f"{CTAL}.spatial_att.gather.product.3/MatMul", "ctal.inter"),
        (f"{CTAL}.spatial_att.gather.along_rows/MatMul", "ctal.inter"),
        ("ctal.spatial_att.task_fusion/Conv", "ctal.inter"),
        (f"{CTAL}.spatial_att.spread.3/Mul", "ctal.inter"),
        (f"{CTAL}.spatial_att.spread.3.product/MatMul", "ctal.diffusion"),
        (f"{CTAL}.spatial_att.spread.depth.product/MatMul", "ctal.diffusion"),
        (f"{CTAL}.spatial_att.projection.depth/Conv", "ctal.diffusion"),
        (f"{CTAL}.spatial_att/Add_1", "ctal.diffusion"),
        (f"{CTAL}.conv_out.depth.3/Conv", "upsampling.depth"),
        ("ctal.conv_out.normals.0/Conv", "upsampling.normals"),
        ("heads.depth.0.conv1/Conv", "heads.depth"),
        ("outputs.depth/Resize", "heads.depth"),
        ("frame/Conv", "frame"),
        ("ctalk/Conv", "other"),
    ],
)
def test_a_node_belongs_to_a_section(node: str, section: str):
    assert section_of(node) == section


@pytest.mark.parametrize("kind", ["emanet", "m_emanet", "hps", "stl"])
def test_every_layer_of_a_deployed_network_belongs_to_a_section(kind: str):
    torch = pytest.importorskip("torch")
    from emadeploy import nets
    from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
    from emadeploy.export import deploy
    from emadeploy.export.attention import Product

    spec = ModelSpec("small", kind, (TaskSpec("semseg", channels=4), TaskSpec("depth")), InputSpec(32, 64))
    network, _ = deploy.exact(nets.build(spec), spec.task_names, tiled=False)
    computing = (torch.nn.Conv2d, torch.nn.Linear, Product)
    # Initial predictions are of no use once deployed, and not in the graph.
    layers = [
        f"{name}/Compute"
        for name, module in network.named_modules()
        if isinstance(module, computing) and not name.startswith("initial_task_prediction_heads.conv_out")
        if ".decoders." not in name
    ]
    sections = {section_of(layer) for layer in layers}
    assert "other" not in sections
    assert {"heads.semseg", "heads.depth"} <= sections
    inside = {"ctal.intra", "ctal.inter", "ctal.diffusion", "upsampling.semseg", "upsampling.depth"}
    assert sections & inside == (inside if kind in ("emanet", "m_emanet") else set())
    units = units_of(dict.fromkeys(layers, 1.0))
    assert nodes_of(units) == set(layers)
    assert all({section_of(node) for node in unit.nodes} == {unit.section} for unit in units)


def test_the_layers_of_a_block_stay_together_in_the_order_of_the_network():
    costs = {
        "backbone.0.layer1.0.downsample.0/Conv": 1.0,
        "backbone.0.layer1.0.conv1/Conv": 2.0,
        "backbone.0.layer1.0.conv2/Conv": 3.0,
        "backbone.0.layer1.1.conv1/Conv": 4.0,
        f"{CTAL}.spatial_att.gather.product.0/MatMul": 5.0,
        f"{CTAL}.spatial_att.gather.product.1/MatMul": 6.0,
        f"{CTAL}.spatial_att.spread.depth.product/MatMul": 7.0,
        "heads.depth.2/Conv": 8.0,
    }
    nodes = list(costs)
    assert units_of(costs) == (
        Unit("backbone.0.layer1.0", tuple(nodes[:3]), "backbone", 6.0),
        Unit("backbone.0.layer1.1", (nodes[3],), "backbone", 4.0),
        Unit(f"{CTAL}.spatial_att.gather", tuple(nodes[4:6]), "ctal.inter", 11.0),
        Unit(f"{CTAL}.spatial_att.spread.depth", (nodes[6],), "ctal.diffusion", 7.0),
        Unit("heads.depth.2", (nodes[7],), "heads.depth", 8.0),
    )


@pytest.mark.parametrize(("costs", "message"), [({}, "no unit"), ({"heads.depth.2/Conv": 0.0}, "cost 0")])
def test_nodes_that_make_no_units_are_refused(costs: dict[str, float], message: str):
    with pytest.raises(SpecError, match=message):
        units_of(costs)
