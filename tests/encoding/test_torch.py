"""Torch modules: keys and logits of small real networks, and the model left as it was."""

import copy
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import residua as rs
from residua.errors import (
    DtypeError,
    EncodeError,
    InputError,
    KeyModuleError,
    LabelError,
    ParameterError,
    ShapeError,
    SourceMismatchError,
)


class ConvNet(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


class Wrap(nn.Module):
    """A network whose output is changed by a function."""

    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.change(self.net(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ConvNet()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(50, 1, 5, 5, generator=generator), torch.arange(50) % 3


def flags(model):
    return [module.training for module in model.modules()]


def hooks_in(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def expected(net, x):
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        keys = net.norm(net.conv(x)).relu().mean((2, 3))
        return keys.numpy(), net.fc(keys).numpy()


def test_keys_and_logits_equal_a_bare_forward_pass_in_dataset_order(net, images):
    keys, logits = expected(net, images[0])
    dataset = TensorDataset(*images)
    for data in (images, dataset, DataLoader(dataset, 7, shuffle=True, drop_last=True), DataLoader(dataset, 64)):
        enc = rs.encode(net, data, batch_size=7 if isinstance(data, tuple) else None)
        np.testing.assert_allclose(enc.keys, keys, atol=1e-6)
        np.testing.assert_allclose(np.asarray(enc.logits), logits, atol=1e-6)
        assert enc.keys.dtype == np.float32
        assert enc.labels.tolist() == images[1].tolist()
        assert (enc.task, enc.ids, enc.source.key, enc.source.name) == ("classification", None, "fc:input", "ConvNet")


def test_iterable_datasets_of_unknown_length(net, images):
    class Stream(IterableDataset):
        def __iter__(self):
            return zip(*images)

    enc = rs.encode(net, DataLoader(Stream(), batch_size=3))
    np.testing.assert_allclose(enc.keys, expected(net, images[0])[0], atol=1e-6)
    assert len(enc) == 50

    class Nothing(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(InputError, match="no examples"):
        rs.encode(net, Nothing())


def test_the_head_reproduces_the_logits_and_does_not_follow_later_training(net, images):
    enc = rs.encode(net, images)
    with torch.no_grad():
        net.fc.weight.zero_()
    np.testing.assert_allclose(enc.head(torch.from_numpy(enc.keys)), np.asarray(enc.logits), atol=1e-5)
    assert rs.encode(net, images, key="norm").head is None


def test_a_last_linear_that_is_not_the_output_gives_no_head(net, images, caplog):
    with caplog.at_level(logging.WARNING):
        enc = rs.encode(Wrap(net, lambda out: out.log_softmax(1)), images)
    assert enc.head is None
    assert enc.source.key == "net.fc:input"
    assert not caplog.records  # the layer is the right one


@pytest.mark.parametrize(
    "change",
    [lambda out: SimpleNamespace(logits=out), lambda out: (out, None), lambda out: {"logits": out}],
    ids=["attribute", "tuple", "dict"],
)
def test_outputs_that_hold_the_logits(net, images, change):
    enc = rs.encode(Wrap(net, change), images)
    np.testing.assert_allclose(np.asarray(enc.logits), expected(net, images[0])[1], atol=1e-6)
    assert enc.head is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: None, "returned NoneType"),
        (lambda out: out[:, :, None, None], r"shape \(8, 3, 1, 1\) for 8 examples"),
        (lambda out: out[:1], r"shape \(1, 3\) for 8 examples"),
    ],
)
def test_outputs_that_do_not(net, images, change, message):
    with pytest.raises(EncodeError, match=message):
        rs.encode(Wrap(net, change), images)
    assert hooks_in(net) == 0


def test_training_flags_and_state_are_put_back(net, images):
    net.train()
    net.norm.eval()
    before, state = flags(net), {name: value.clone() for name, value in net.state_dict().items()}
    enc = rs.encode(net, images)
    assert flags(net) == before
    assert hooks_in(net) == 0
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert all(not p.is_inference() and p.requires_grad for p in net.parameters())
    np.testing.assert_allclose(enc.keys, rs.encode(net.eval(), images).keys)  # dropout was off


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_or_error_leaves_the_model_as_it_was(net, error):
    class Failing(Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, i):
            if i == 15:
                raise error("stop")
            return torch.zeros(1, 5, 5), 0

    net.train()
    before = flags(net)
    with pytest.raises(error, match="stop"):
        rs.encode(net, DataLoader(Failing(), batch_size=5))
    assert flags(net) == before
    assert hooks_in(net) == 0
    assert not torch.is_inference_mode_enabled()


def test_named_keys_are_pooled_over_space(net, images):
    enc = rs.encode(net, images, key="norm")
    with torch.no_grad():
        net.eval()
        maps = net.norm(net.conv(images[0]))
    np.testing.assert_allclose(enc.keys, maps.mean((2, 3)).numpy(), atol=1e-6)
    assert enc.source.key == "norm"


def test_key_errors(net, images):
    with pytest.raises(KeyModuleError, match=r"no module 'nrm'.*'norm'"):
        rs.encode(net, images, key="nrm")
    with pytest.raises(KeyModuleError, match="ran 2 times"):
        rs.encode(Wrap(nn.Sequential(net, relu := nn.ReLU(), relu), lambda out: out), images, key="net.1")
    with pytest.raises(ParameterError, match="dotted name"):
        rs.encode(net, images, key=lambda x: x)
    side = nn.Identity()
    sideways = Wrap(net, lambda out: (side(out.T), out)[1])
    sideways.side = side
    with pytest.raises(EncodeError, match="gave 3 rows for 50 examples"):
        rs.encode(sideways, images, key="side")


def test_a_lone_logit_is_two_columns(images):
    torch.manual_seed(0)
    net, x, y = nn.Sequential(nn.Flatten(), nn.Linear(25, 1)), images[0], images[1] % 2
    said = net(x)[:, 0].detach().numpy()
    for model in (net, Wrap(net, lambda out: out[:, 0])):
        enc = rs.encode(model, (x, y))
        assert enc.task == "classification"
        np.testing.assert_allclose(np.asarray(enc.logits), np.stack([0 * said, said], 1), atol=1e-6)
        np.testing.assert_allclose(enc.head(torch.from_numpy(enc.keys)), np.asarray(enc.logits), atol=1e-5)
    assert rs.encode(net, (x, y[:, None].float()), task="classification").labels.tolist() == y.tolist()
    assert rs.encode(model, x, like=enc).n_outputs == 2
    assert rs.encode(net, x).n_outputs == 1


def test_floating_labels_are_regression_unless_they_are_zeros_and_ones_that_the_outputs_do_not_predict(images):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(25, 1)), images[0]
    targets = torch.linspace(-3, 3, 50)
    enc = rs.encode(net, (x, targets))
    assert (enc.task, enc.n_outputs) == ("regression", 1)
    np.testing.assert_allclose(enc.labels, targets)
    binary = targets.gt(0).float()
    with pytest.warns(UserWarning, match="task='classification'"):
        enc = rs.encode(net, (x, binary))
    assert (enc.task, enc.n_outputs, enc.labels.tolist()) == ("classification", 2, binary.tolist())
    assert rs.encode(net, (x, binary), task="regression").task == "regression"
    fitted = Wrap(nn.Flatten(), lambda out: binary[:, None] * 0.8 + 0.3)  # beyond 1, and close to the targets
    assert rs.encode(fitted, (x, binary), key="net").task == "regression"
    assert rs.encode(Wrap(net, torch.sigmoid), (x, binary)).source.output == "probabilities"


def test_label_errors(net, images):
    with pytest.raises(LabelError, match="0 and 1 for each of 3 labels"):
        rs.encode(net, (images[0], torch.full((50, 3), 2)))
    with pytest.raises(LabelError, match="out of range"):
        rs.encode(net, (images[0], torch.full((50,), 3)))
    with pytest.raises(LabelError, match="map class names"):
        rs.encode(net, [(x, "cat") for x in images[0]])
    with pytest.raises(ParameterError, match="pass one of the two"):
        rs.encode(net, TensorDataset(*images), images[1])
    assert rs.encode(net, TensorDataset(images[0]), images[1]).labels.tolist() == images[1].tolist()
    assert rs.encode(net, images[0]).labels is None


def test_ids_are_given_or_left_to_the_memory(net, images):
    assert rs.encode(net, images, ids=np.arange(50) + 7).ids.tolist() == list(range(7, 57))
    assert rs.encode(net, images).ids is None


def test_dtypes_that_do_not_fit_name_the_remedy(net, images):
    with pytest.raises(DtypeError, match=r"parameters are float16 and the inputs float32.*x\.to\(torch\.float16\)"):
        rs.encode(copy.deepcopy(net).half(), images)
    with pytest.raises(DtypeError, match="inputs uint8"):
        rs.encode(net, (images[0].to(torch.uint8), images[1]))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):  # another failure is not dressed up
        rs.encode(nn.Linear(4, 2), (torch.zeros(3, 5), [0, 1, 1]))
    half = rs.encode(copy.deepcopy(net).bfloat16(), (images[0].bfloat16(), images[1]))
    assert half.keys.dtype == np.float32
    assert half.source.dtype == "bfloat16"


def test_ambient_autocast_is_respected(net, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        enc = rs.encode(net, images)
        with torch.inference_mode():
            said = copy.deepcopy(net).eval()(images[0])
    assert said.dtype == torch.bfloat16
    np.testing.assert_array_equal(np.asarray(enc.logits), said.float().numpy())
    np.testing.assert_allclose(enc.head(torch.from_numpy(enc.keys)), said.float(), atol=0.02)


def test_like_gives_key_and_task_and_refuses_another_model(net, images):
    enc = rs.encode(net, images, key="norm")
    query = rs.encode(net, images[0], like=enc)
    assert (query.source.key, query.task) == ("norm", "classification")
    np.testing.assert_array_equal(query.keys, enc.keys)
    other = ConvNet()
    with pytest.raises(SourceMismatchError, match="norm"):
        rs.encode(other, images, like=enc)
    with pytest.raises(SourceMismatchError, match="keys come from"):
        rs.encode(net, images, key="conv", like=enc)
    with pytest.raises(ParameterError, match="does not know its model"):
        rs.encode(net, images, like=rs.Encoded(enc.keys, enc.logits))


def test_inputs_of_several_sizes(net):
    sizes = [(torch.randn(1, 5 + i, 5), 0) for i in range(3)]
    assert rs.encode(net, DataLoader(sizes, batch_size=1)).keys.shape == (3, 6)
    side = nn.Identity()
    growing = Wrap(nn.Linear(3, 2), lambda out: (side(out.repeat(1, len(out))), out)[1])
    growing.side = side
    with pytest.raises(EncodeError, match="one width"):
        rs.encode(growing, DataLoader(TensorDataset(torch.zeros(5, 3), torch.zeros(5).long()), 3), key="side")


def test_numpy_and_pandas_arrays_take_the_models_dtype():
    pandas = pytest.importorskip("pandas")
    model = nn.Linear(3, 2)
    X, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 0, 1])
    plain = rs.encode(model, (X, y))
    frame = rs.encode(model, (pandas.DataFrame(X), pandas.Series(y)))
    np.testing.assert_array_equal(plain.keys, X.astype(np.float32))
    np.testing.assert_array_equal(frame.keys, plain.keys)
    assert plain.source.key == ":input"
    with pytest.raises(ShapeError, match="3 labels for 4"):
        rs.encode(model, (X, y[:3]))


def test_a_memorised_training_set_is_announced_with_the_number():
    model = nn.Linear(2, 2)
    nn.init.eye_(model.weight)
    nn.init.zeros_(model.bias)
    x = 20 * torch.eye(2).repeat(10, 1)
    with pytest.warns(UserWarning, match=r"100\.0 % of the residuals.*20 examples.*held-out"):
        rs.encode(model, (x, torch.arange(20) % 2))
    rs.encode(model, (x, torch.arange(20).add(1) % 2))  # all wrong: residuals are large, no warning


def test_a_compiled_model_is_read_through_its_own_module(net, images):
    compiled = torch.compile(net, backend="eager")
    enc = rs.encode(compiled, images)
    np.testing.assert_array_equal(enc.keys, rs.encode(net, images).keys)
    assert rs.encode(net, images).source.difference(enc.source) is None


def test_progress_false_is_silent_and_quick_runs_are_too(net, images, capsys):
    rs.encode(net, images, progress=False)
    rs.encode(net, images)
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused_in_words():
    scripted = torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3))
    with pytest.raises(EncodeError, match=r"compiled to TorchScript.*encode that, or bring arrays"):
        rs.encode(scripted, torch.zeros(4, 3))


def test_a_model_that_keeps_a_tensor_can_be_trained_afterwards():
    class Lazy(nn.Module):
        """Makes a table at its first call, as models of positions do."""

        def __init__(self):
            super().__init__()
            self.body, self.head, self.table = nn.Linear(4, 8), nn.Linear(8, 3), None

        def forward(self, x):
            if self.table is None:
                self.table = torch.linspace(0.5, 1, 8)
            return self.head(self.body(x).relu() * self.table)

    model, x, y = Lazy(), torch.randn(9, 4), torch.arange(9) % 3
    rs.encode(model, (x, y))
    nn.functional.cross_entropy(model(x), y).backward()
    assert model.body.weight.grad is not None
