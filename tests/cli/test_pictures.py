"""``residua encode`` with the models of timm and transformers, and pictures in folders."""

import json

import numpy as np
import pytest
import torch

import residua as rs

Image = pytest.importorskip("PIL.Image")
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def images(here):
    """``images/<colour>/<n>.png``, two pictures each, among what is no picture."""
    for name, colour in COLOURS.items():
        folder = here / "images" / name
        (folder / ".hidden").mkdir(parents=True)
        (folder / "notes.txt").write_text("no picture")
        for n in (1, 2):
            Image.new("RGB", (20 + n, 20), tuple(value // n for value in colour)).save(folder / f"{n}.png")
        Image.new("RGB", (20, 20)).save(folder / ".hidden" / "3.png")
    return here / "images"


@pytest.fixture
def hf(here):
    """A tiny transformers classifier in ``hf/``, which numbers the colours its own way."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "red", 1: "blue", 2: "green"},
        label2id={"red": 0, "blue": 1, "green": 2},
    )
    model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(here / "hf")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (here / "hf" / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def test_transformers_numbers_classes_by_their_names(run, images, hf):
    run("encode", "hf:hf", "images", "-o", "out.npz")
    enc = rs.Encoded.load("out.npz")
    assert enc.labels.tolist() == [1, 1, 2, 2, 0, 0] and enc.classes == ("red", "blue", "green")
    assert enc.names.tolist() == [f"images/{name}/{n}.png" for name in COLOURS for n in (1, 2)]
    from transformers import AutoImageProcessor

    picture = Image.open("images/red/2.png").convert("RGB")
    with torch.no_grad():
        expected = hf(**AutoImageProcessor.from_pretrained("hf")(picture, return_tensors="pt")).logits[0]
    np.testing.assert_allclose(enc.logits.dense()[5], expected, atol=1e-5)


def test_what_was_encoded_is_explained_in_names(run, images, hf):
    run("encode", "hf:hf", "images", "-o", "out.npz")
    run("build", "out.npz", "-o", "mem")
    said = run("explain", "mem", "out.npz", "--row", 0, "--reader", "resmem", "--k", 2).stdout
    assert "class blue: base " in said and "images/blue/1.png" in said
    run("relabel", "mem", "--id", 0, "--label", "green")
    assert rs.Memory.load("mem").labels[0] == 2
    assert "no class is called 'mauve'" in run("relabel", "mem", "--id", 0, "--label", "mauve", code=1).stderr


def test_pictures_without_classes_are_queries(run, images, hf):
    run("encode", "hf:hf", "images/red", "-o", "out.npz")
    enc = rs.Encoded.load("out.npz")
    assert enc.labels is None and enc.names.tolist() == ["images/red/1.png", "images/red/2.png"]


def test_folders_that_are_no_outputs(run, images, hf):
    (images / "red").rename(images / "mauve")
    (images / "teal").mkdir()
    stderr = run("encode", "hf:hf", "images", "-o", "out.npz", code=1).stderr
    assert "4 class folders, such as 'blue', and the model has 3 outputs" in stderr and "--kind none" in stderr
    run("encode", "hf:hf", "images", "-o", "out.npz", "--kind", "none", "--key", "classifier.1:input")
    assert rs.Encoded.load("out.npz").source.output == "none"


def test_what_cannot_be_read(run, here, images, hf):
    (here / "empty").mkdir()
    assert "holds no pictures" in run("encode", "hf:hf", "empty", "-o", "out.npz", code=1).stderr
    assert "expected a folder of pictures" in run("encode", "hf:hf", "nowhere", "-o", "out.npz", code=1).stderr
    assert "no empty/config.json" in run("encode", "hf:empty", "images", "-o", "out.npz", code=1).stderr
    stderr = run("encode", "hf:hf", "images", "-o", "out.npz", "--checkpoint", "w.pt", code=1).stderr
    assert "--checkpoint w.pt is for timm's models" in stderr
    stderr = run("encode", "net:model", "net:train", "-o", "out.npz", "--checkpoint", "w.pt", code=1).stderr
    assert "'net:model' is none of them" in stderr
    Image.new("RGB", (4, 4)).save(images / "stray.png")
    assert "both folders and pictures" in run("encode", "hf:hf", "images", "-o", "out.npz", code=1).stderr
    (images / "stray.png").unlink()
    (images / "blue" / "0.png").write_bytes(b"no picture")
    stderr = run("encode", "hf:hf", "images", "-o", "out.npz", code=1).stderr
    assert "images/blue/0.png cannot be read as a picture" in stderr


def test_timm_with_weights_of_a_file(run, images):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    torch.save(model.state_dict(), "weights.pt")
    run("encode", "timm:test_resnet", "images", "-o", "out.npz", "--checkpoint", "weights.pt")
    enc = rs.Encoded.load("out.npz")
    assert enc.labels.tolist() == [0, 0, 1, 1, 2, 2] and enc.classes == tuple(COLOURS)
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        expected = model(prepare(Image.open("images/green/1.png").convert("RGB"))[None])[0]
    np.testing.assert_allclose(enc.logits.dense()[2], expected, atol=1e-5)


def test_timm_says_what_it_lacks(run, images):
    timm = pytest.importorskip("timm")
    assert "near names: resnet1" in run("encode", "timm:resnet1x", "images", "-o", "out.npz", code=1).stderr
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), "other.pt")
    words = ("encode", "timm:test_resnet", "images", "-o", "out.npz", "--checkpoint")
    assert "weights of another model than test_resnet" in run(*words, "other.pt", code=1).stderr
    assert "there is no file nowhere.pt" in run(*words, "nowhere.pt", code=1).stderr
    (images.parent / "torn.pt").write_bytes(b"torn")
    assert "cannot be read as weights" in run(*words, "torn.pt", code=1).stderr


@pytest.mark.filterwarnings("always:hf")
def test_a_classifier_without_its_last_layer_is_warned_of(run, here, images, hf):
    hf.resnet.save_pretrained("bone")
    bone = here / "bone" / "config.json"
    config = json.loads(bone.read_text()) | {"id2label": {"0": "red", "1": "blue", "2": "green"}}
    bone.write_text(json.dumps(config))
    (bone.parent / "preprocessor_config.json").write_bytes((here / "hf" / "preprocessor_config.json").read_bytes())
    stderr = run("encode", "hf:bone", "images", "-o", "out.npz").stderr
    assert "lacks 2 of the weights of a ResNetForImageClassification" in stderr and "they are random" in stderr
