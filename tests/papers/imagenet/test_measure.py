"""The whole path on a generated folder and random weights: encoding goes on where it stopped, answers are right."""

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError, ParameterError
from residua.papers.imagenet import REPRODUCTION, shards
from residua.papers.imagenet.folder import Images, listing
from residua.papers.imagenet.models import load_model
from residua.papers.imagenet.shards import encode_shards, gathered, load_shards
from residua.papers.published import IMAGENET_MOBILENET_V2
from residua.papers.record import rounded
from residua.papers.work import Work

BASIC = {name: option.default for name, option in REPRODUCTION.options.items()}


@pytest.fixture
def options(small_imagenet, small_model, tmp_path):
    own = {"data": str(small_imagenet), "model": small_model, "weights": "random", "shards": str(tmp_path / "shards")}
    return {**BASIC, **own, "shard_rows": 10, "batch_size": 4, "alpha": 0.35}


def test_shards_are_the_encoding(small_imagenet, small_model, tmp_path):
    model, preprocessing = load_model(small_model)
    images = Images(listing(small_imagenet / "train"), preprocessing)
    paths = encode_shards(model, images, tmp_path / "s", rows=10, batch_size=4)
    assert [path.name for path in paths] == ["00000.npz", "00001.npz", "00002.npz", "00003.npz"]
    whole = rs.encode(model, images, batch_size=36)
    found = gathered(paths)
    np.testing.assert_allclose(found.keys, whole.keys, atol=1e-5)
    np.testing.assert_allclose(np.asarray(found.logits), np.asarray(whole.logits), atol=1e-4)
    assert found.labels.tolist() == whole.labels.tolist()
    memory = rs.Memory(load_shards(paths), storage="head")
    assert memory.ids.tolist() == list(range(36))


def test_stopped_encoding_goes_on(small_imagenet, small_model, tmp_path, monkeypatch):
    model, preprocessing = load_model(small_model)
    images = Images(listing(small_imagenet / "train"), preprocessing)
    encode, calls = rs.encode, []

    def counted(*arguments, **options):
        calls.append(options["ids"][0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*arguments, **options)

    monkeypatch.setattr(shards.rs, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        encode_shards(model, images, tmp_path, rows=10, batch_size=4)
    encode_shards(model, images, tmp_path, rows=10, batch_size=4)
    assert calls == [0, 10, 20, 20, 30]


def test_other_images_models_and_sizes_are_not_mixed(small_imagenet, small_model, tmp_path):
    model, preprocessing = load_model(small_model)
    images = Images(listing(small_imagenet / "val"), preprocessing)
    encode_shards(model, images, tmp_path, rows=10, batch_size=4)
    with pytest.raises(MemoryFileError, match="keys of other rows; give another folder"):
        encode_shards(model, images, tmp_path, rows=9, batch_size=4)
    with pytest.raises(MemoryFileError, match="keys of other images"):
        encode_shards(model, Images(listing(small_imagenet / "train"), preprocessing), tmp_path, rows=10, batch_size=4)
    model.fc.weight.data *= 2
    with pytest.raises(MemoryFileError, match="keys of other model"):
        encode_shards(model, images, tmp_path, rows=10, batch_size=4)
    with pytest.raises(ParameterError, match="expected"):
        encode_shards(model, images, tmp_path, rows=0, batch_size=4)


def test_answers_are_the_verbs(options):
    results = rounded(REPRODUCTION.run(Work(), **options))
    assert (results["classes"], results["train"], results["n"], results["dim"]) == (3, 36, 18, 12)
    paper = IMAGENET_MOBILENET_V2[0.35]
    settings = {name: paper[name] for name in ("k", "sigma", "temperature")}
    model, preprocessing = load_model(options["model"])
    train = listing(f"{options['data']}/train")
    enc, test = (
        rs.encode(model, Images(images, preprocessing))
        for images in (train, listing(f"{options['data']}/val", train.classes))
    )
    result = rs.evaluate(rs.ResMem(rs.Memory(enc), **settings), test)
    ours = results["readers"]["resmem_paper"]
    assert ours["settings"] == settings
    assert ours["accuracy"] == pytest.approx(100 * result.accuracy, rel=1e-5)
    assert (ours["tpr"], ours["fpr"]) == pytest.approx((100 * result.tpr, 100 * result.fpr), rel=1e-5)
    assert results["base"] == pytest.approx(100 * result.base_accuracy, rel=1e-5)
    # Colours tell these classes apart, which random weights keep and their logits do not know.
    assert results["readers"]["resmem_tuned"]["accuracy"] > results["base"] + 20


def test_random_weights_and_other_images_are_said_to_be_so(options):
    results = rounded(REPRODUCTION.run(Work(), **options))
    blocks = [str(block) for block in REPRODUCTION.tell(results)]
    assert "randomly initialised" in blocks[0]
    assert "60.2" in "\n".join(blocks) and "61.2" in "\n".join(blocks)
    given = [str(block) for block in REPRODUCTION.tell({**results, "weights": "pretrained"})]
    assert "not ImageNet's 1,000 classes" in given[0]
    figure = REPRODUCTION.draw(results)
    assert "randomly initialised" in figure.get_suptitle()


def test_widths_that_table_2_has_not(options):
    with pytest.raises(
        ParameterError, match=r"alpha=2\.0; expected a width of Table 2: 0\.35, 0\.5, 0\.75, 1\.0, 1\.3"
    ):
        REPRODUCTION.run(Work(), **{**options, "alpha": 2.0})
