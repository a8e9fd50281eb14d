"""Exports: the files alone compute what the network computes, in all spaces and with all heads."""

import json
import sys

import jax
import numpy as np
import pytest

from tests import tiny, tiny_training
from tests.handmade import NAMES, SMALL, trained
from unnas_jax.convert import exports, preprocessing, to_onnx
from unnas_jax.core.errors import UserError
from unnas_jax.runs.trained import Trained

# With these cells every operation that has a form outside of JAX is in a network.
ALL = (
    "Genotype(normal=[('sep_conv_5x5', 0), ('conv_3x1_1x3', 1), ('dil_sep_conv_3x3', 0), "
    "('avg_pool_3x3', 2), ('conv_3x3', 1), ('none', 0)], normal_concat=[2, 3, 4], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1), ('none', 0), ('dil_conv_5x5', 2), "
    "('avg_pool_2x2', 1), ('conv_7x1_1x7', 0)], reduce_concat=[3, 4])"
)
NETWORKS = {
    "darts": {"network": {"genotype": ALL, "stem": "cifar"}},
    "segmentation": {
        "task": {"name": "segmentation", "aspp_channels": 4, "aspp_rates": (2,)},
        "network": {"genotype": str(tiny_training.CELLS), "stem": "imagenet"},
        "input": {"crop": 24, "resize": 24},
    },
    "nasbench101": {
        "task": {"name": "jigsaw", "grid": 2, "permutations": 24},
        "network": {
            "space": "nasbench101",
            "genotype": "01101-00110-00001-00001-00000:conv3x3,maxpool3x3,conv1x1",
            "stacks": 2,
            "modules": 1,
            "width": "6",
        },
        "input": {"crop": 24, "resize": 24},
    },
    "nasbench201": {"network": SMALL},
}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [*tiny.upright(2, 40), np.full((37, 90, 3), 200, np.uint8)]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request) -> Trained:
    return trained(**NETWORKS[request.param])


def test_pytorch_and_onnx_compute_the_same(network, images, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    for form in ("torch", "onnx"):
        folder = tmp_path / form
        difference = exports.write(network, form, str(folder), images)
        facts = json.loads((folder / "network.json").read_text())
        assert difference < 1e-4 and facts["check"]["largest_difference"] == difference
        assert facts["check"]["largest_output"] > 0.1
        named = network.config.task.name != "jigsaw"
        assert facts["class_names"] == (list(NAMES) if named else [])
        assert (folder / "preprocessing.py").exists() == named


def test_a_wrong_export_is_refused(images, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(to_onnx, "BN_EPSILON", 0.5)
    with pytest.raises(UserError, match="differ by up to .* the files are no good"):
        exports.write(trained(**NETWORKS["nasbench201"]), "onnx", str(tmp_path / "w"), images)


def test_stablehlo_and_safetensors_compute_the_same(images, tmp_path):
    pytest.importorskip("safetensors")
    network = trained(**NETWORKS["nasbench201"])
    for form in ("stablehlo", "safetensors"):
        folder = tmp_path / form
        assert exports.write(network, form, str(folder), images) < 1e-5
    loaded = jax.export.deserialize(
        bytearray((tmp_path / "stablehlo" / "network.stablehlo").read_bytes())
    )
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    program = loaded.mlir_module()
    # 3 cells of 2 convolutions, 2 reductions of 3, the stem: as plain as that, on any platform.
    assert program.count("stablehlo.convolution") >= 13 and "custom_vjp" not in program
    assert loaded.in_avals[0].shape[1:] == (16, 16, 3)


def test_the_pytorch_file_can_be_trained(images, tmp_path):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    exports.write(trained(**NETWORKS["nasbench201"]), "torch", str(tmp_path), images)
    names = {}
    source = (tmp_path / "network.py").read_text()
    assert "unnas_jax." not in source and "import unnas" not in source
    exec(source, names)
    module = names["Network"]()
    module.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8) % 3
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(module(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("size", [(40, 40), (37, 90), (17, 11), (200, 301)])
@pytest.mark.parametrize("evaluation", ["centre", "whole"])
def test_the_written_preprocessing_is_that_of_the_evaluation(size, evaluation):
    task = {"task": {"name": "segmentation"}} if evaluation == "whole" else {}
    network = trained(eval={"crop": evaluation, "whole_size": (210, 305)}, **task)
    names = {}
    exec(preprocessing.source_of(network, channels_first=False), names)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    ours = np.asarray(network.preprocessing([image]))[0]
    theirs = names["preprocess"](image)
    assert theirs.dtype == np.float32 and theirs.shape == ours.shape
    levels = np.abs(theirs - ours) * 255 * np.asarray(network.dataset.std)
    assert levels.max() < 1.01  # OpenCV interpolates with shares of 1 / 2048.


@pytest.mark.parametrize(
    ("form", "package"),
    [("torch", "torch"), ("onnx", "onnx"), ("onnx", "onnxruntime"), ("safetensors", "safetensors")],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    form, package, images, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)  # As if there were none.
    with pytest.raises(UserError, match=rf"{package}.*pip install 'unnas_jax\[{form}\]'"):
        exports.write(trained(**NETWORKS["nasbench201"]), form, str(tmp_path / "x"), images)


def test_what_has_no_form_outside_is_told(images, tmp_path):
    pytest.importorskip("torch")
    noisy = (
        "Genotype(normal=[('noise', 0), ('skip_connect', 1)], normal_concat=[2], "
        "reduce=[('noise', 0), ('skip_connect', 1)], reduce_concat=[2])"
    )
    network = trained(network={"genotype": noisy})
    with pytest.raises(UserError, match="operation 'noise' has no form outside of JAX"):
        exports.FORMATS["torch"](network, str(tmp_path), (16, 16, 3))
    network = trained(**NETWORKS["nasbench201"])
    with pytest.raises(UserError, match="one network: give one seed"):
        exports.write(Trained(**{**vars(network), "seeds": (0, 1)}), "torch", str(tmp_path), images)
