"""Image models as the two large collections have them, with random weights: the base at k = 0 is the model."""

import warnings

import numpy as np
import pytest
import torch

import residua as rs

CLASSES, ROWS = 7, 3
TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vit_b_32",
    "wide_resnet50_2",
]
TIMM = [
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "convmixer_768_32",
    "convnext_atto",
    "crossvit_tiny_240",
    "cspresnet50",
    "deit_tiny_distilled_patch16_224",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla34",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientnet_b0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_050",
    "hardcorenas_a",
    "hrnet_w18_small",
    "inception_v4",
    "levit_128s",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "nfnet_l0",
    "pit_ti_224",
    "poolformer_s12",
    "pvt_v2_b0",
    "regnetx_002",
    "repvgg_a0",
    "res2net50_14w_8s",
    "resmlp_12_224",
    "resnest14d",
    "resnet18",
    "rexnet_100",
    "selecsls42b",
    "seresnet18",
    "swin_tiny_patch4_window7_224",
    "tf_mobilenetv3_small_minimal_100",
    "tiny_vit_5m_224",
    "twins_svt_small",
    "vgg11",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "volo_d1_224",
    "xception41",
    "xcit_nano_12_p16_224",
]


def check(model: torch.nn.Module, size: int) -> None:
    """`model` says the same through a memory with k = 0, and attached to one that counts for nothing."""
    images = torch.randn(ROWS, 3, size, size, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        said = model(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enc = rs.encode(model, (images, torch.arange(ROWS)), batch_size=ROWS, progress=False)
    assert enc.source.output == "logits"
    reader = rs.ResMem(rs.Memory(enc), k=0)
    np.testing.assert_allclose(reader.predict_proba(enc), said.softmax(1), atol=2e-5)
    with torch.no_grad(), rs.attach(model, rs.KNNLM(rs.Memory(enc), k=1, lmbda=1e-7)):
        np.testing.assert_allclose(model(images).softmax(1), said.softmax(1), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = {"inception_v3": 299, "maxvit_t": 224, "vit_b_32": 224, "alexnet": 128}.get(name, 96)
    check(models.get_model(name, weights=None, num_classes=CLASSES, **more), size)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=CLASSES)
    check(model, model.default_cfg["input_size"][-1])
