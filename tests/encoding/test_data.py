"""Reading data whole, once, in order."""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import residua as rs
from residua.encoding.data import read_examples
from residua.errors import InputError, ParameterError, ShapeError


class Numbers(Dataset):
    """Item i is ([i], i % 3)."""

    def __init__(self, n=10):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.tensor([float(i)]), i % 3


class Stream(IterableDataset):
    def __iter__(self):
        return ((torch.tensor([float(i)]), i % 3) for i in range(10))


class Noisy(Numbers):
    def __getitem__(self, i):
        return torch.rand(1), i % 3


def read(data, dtype=torch.float32, **options):
    examples = read_examples(data, **options)
    xs, ys, _ = zip(*examples.batches(dtype))
    return [len(x) for x in xs], torch.cat(xs)[:, 0].tolist(), ys


ORDER = [float(i) for i in range(10)]


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Numbers(), batch_size=4, shuffle=True),
        DataLoader(Numbers(), batch_size=4, shuffle=True, drop_last=True),
        DataLoader(Numbers(), batch_size=4, shuffle=True, num_workers=1),
        DataLoader(Numbers(), batch_sampler=BatchSampler(RandomSampler(Numbers()), 4, True)),
        DataLoader(Numbers(), batch_sampler=BatchSampler(SequentialSampler(Numbers()), 4, False)),
        DataLoader(Stream(), batch_size=4, drop_last=True),
    ],
    ids=["shuffle", "drop_last", "worker", "batch_sampler", "sequential", "iterable"],
)
def test_loaders_are_read_whole_in_dataset_order_by_their_batch_size(loader):
    sizes, order, ys = read(loader)
    assert sizes == [4, 4, 2]
    assert order == ORDER
    assert torch.cat(ys).tolist() == [i % 3 for i in range(10)]


def test_collate_function_of_the_loader_is_kept():
    def tenfold(items):
        return torch.stack([x for x, _ in items]) * 10, torch.tensor([y for _, y in items])

    assert read(DataLoader(Numbers(), batch_size=5, collate_fn=tenfold))[1] == [10 * i for i in ORDER]


def test_datasets_that_make_their_own_batches():
    batches = [(torch.arange(3.0)[:, None], torch.zeros(3)), (torch.arange(3.0, 5.0)[:, None], torch.ones(2))]
    sizes, order, _ = read(DataLoader(batches, batch_size=None))
    assert (sizes, order) == ([3, 2], ORDER[:5])


@pytest.mark.parametrize(
    "sampler",
    [
        SubsetRandomSampler([1, 2]),
        WeightedRandomSampler([1.0] * 10, 10),
        RandomSampler(Numbers(), replacement=True),
        RandomSampler(Numbers(), num_samples=5),
    ],
    ids=["subset", "weighted", "replacement", "fewer"],
)
def test_a_sampler_that_selects_is_refused_and_a_subset_is_the_way(sampler):
    with pytest.raises(ParameterError, match=r"Subset\(dataset, indices\)"):
        read_examples(DataLoader(Numbers(), sampler=sampler))
    assert read(Subset(Numbers(), [7, 2]))[1] == [7.0, 2.0]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list])
def test_arrays_pairs_and_lists_of_items(kind):
    if kind is list:
        data, labels = [(torch.tensor([i]), 0) for i in ORDER], None
    else:
        data, labels = kind([[i] for i in ORDER]), np.zeros(10)
    assert read(data, labels=labels, batch_size=3)[:2] == ([3, 3, 3, 1], ORDER)
    if kind is not list:
        examples = read_examples((data, labels))
        assert examples.n == 10
        assert examples.labels is labels


def test_numpy_floats_take_the_models_dtype_and_tensors_keep_theirs():
    x = np.arange(3.0)[:, None]
    assert next(read_examples(x).batches(torch.bfloat16))[0].dtype == torch.bfloat16
    assert next(read_examples(x.astype(np.uint8)).batches(torch.float32))[0].dtype == torch.uint8
    assert next(read_examples(torch.from_numpy(x)).batches(torch.float32))[0].dtype == torch.float64


def test_the_callers_random_state_is_left_alone():
    before = torch.get_rng_state()
    read(DataLoader(Numbers(), batch_size=4, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())


def test_random_augmentation_warns_once_and_fixed_items_do_not():
    with pytest.warns(UserWarning, match="two reads of the dataset's first item differ") as caught:
        read_examples(Noisy())
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="two reads"):
        read_examples(DataLoader(Noisy(), batch_size=2))
    read_examples([(torch.tensor([float("nan")]), 1)])
    read_examples([{"x": np.zeros(2), "y": "name"}])


def test_clear_errors():
    for empty in (Numbers(0), torch.zeros(0, 3), np.zeros((0, 3)), [], DataLoader(Numbers(0))):
        with pytest.raises(InputError, match="no examples"):
            read_examples(empty)
    for wrong in ("text", {"x": 1}, None, 3, iter([1])):
        with pytest.raises(InputError, match="expected a Dataset or DataLoader"):
            read_examples(wrong)
    with pytest.raises(ShapeError, match="2 labels for 3 examples"):
        read_examples(torch.zeros(3, 1), [0, 1])
    with pytest.raises(ParameterError, match="pass one of the two"):
        read_examples((torch.zeros(3, 1), [0, 1, 1]), [0, 1, 1])
    with pytest.raises(ParameterError, match="positive integer"):
        read_examples(torch.zeros(3, 1), batch_size=0)
    with pytest.raises(InputError, match="dtype <U1"):
        read_examples(np.array([["a"]]))


def test_items_that_are_not_pairs_of_tensors():
    three = TensorDataset(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2))
    with pytest.raises(InputError, match="3 parts"):
        read(three)
    with pytest.raises(InputError, match="collated to str"):
        read([("name", 0)])
    assert read(TensorDataset(torch.zeros(2, 1)))[2] == (None,)


class Both(nn.Module):
    """Two inputs, and a head."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, left, right):
        return self.head((self.left(left) + self.right(right)).tanh())


class Named(nn.Module):
    """Inputs by name, with labels, as transformers' models have them."""

    main_input_name = "pixels"

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, pixels=None, mask=None, labels=None, **options):
        assert labels is None
        return {"loss": None, "logits": self.head((self.body(pixels) * (1 if mask is None else mask)).tanh())}


LEFT, RIGHT, Y = torch.randn(20, 3), torch.randn(20, 2), torch.arange(20) % 3
NAMES = {"left": LEFT, "right": RIGHT}


def rows(**columns):
    return [{name: column[i] for name, column in columns.items()} for i in range(20)]


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(LEFT, RIGHT, Y),
        [((LEFT[i], RIGHT[i]), int(Y[i])) for i in range(20)],
        [({"left": LEFT[i], "right": RIGHT[i]}, int(Y[i])) for i in range(20)],
        rows(**NAMES, labels=Y),
        rows(label=Y, **NAMES),
        ((LEFT, RIGHT), Y),
        ((LEFT.numpy(), RIGHT.numpy()), Y),
        (NAMES, Y),
        NAMES | {"labels": Y},
        UserDict(NAMES | {"labels": Y}),
        rows(**NAMES, target=Y, name=["a"] * 20),
        TensorDataset(LEFT, RIGHT, Y, torch.arange(20)),
    ],
    ids=[
        "items (a, b, y)",
        "items ((a, b), y)",
        "items (dict, y)",
        "dicts",
        "label first",
        "arrays",
        "numpy",
        "a dict of arrays",
        "with labels",
        "as a tokenizer gives",
        "a column too many",
        "with numbers",
    ],
)
def test_a_model_of_two_inputs(data):
    model = Both().eval()
    enc = rs.encode(model, data, batch_size=7)
    np.testing.assert_allclose(np.asarray(enc.logits), model(LEFT, RIGHT).detach(), atol=1e-6)
    assert enc.labels.tolist() == Y.tolist()
    reader = rs.ResMem(rs.Memory(enc), k=3)
    with torch.no_grad(), rs.attach(model, reader):  # the bare model, however it is called
        np.testing.assert_allclose(
            model(left=LEFT, right=RIGHT).softmax(1), reader.predict_proba(enc, exclude=None), atol=1e-6
        )


def test_items_by_name_are_given_by_name_and_their_labels_kept():
    model = Named().eval()
    mask = torch.ones(20, 4)
    enc = rs.encode(model, rows(pixels=LEFT, mask=mask * 0.5, labels=Y))
    np.testing.assert_allclose(np.asarray(enc.logits), model(LEFT, mask * 0.5)["logits"].detach(), atol=1e-6)
    assert enc.labels.tolist() == Y.tolist()
    assert enc.source.probe is not None
    rs.attach(model, rs.ResMem(rs.Memory(enc), k=3)).detach()
    # One that has other names for its one input.
    plain = nn.Linear(3, 3)
    np.testing.assert_array_equal(rs.encode(plain, rows(image=LEFT, label=Y)).keys, LEFT)
    with pytest.raises(InputError, match=r"parts \['one', 'two'\], and the model takes \['left', 'right'\]"):
        rs.encode(Both(), rows(one=LEFT, two=RIGHT))
    with pytest.raises(ShapeError, match=r"\[19, 20\] rows"):
        rs.encode(Both(), (LEFT, RIGHT[:19], Y))


def test_a_third_part_of_numbers_are_ids_and_nothing_else_is():
    model, numbers = nn.Linear(3, 3), torch.arange(20) * 7
    enc = rs.encode(model, TensorDataset(LEFT, Y, numbers))
    assert enc.ids.tolist() == numbers.tolist()
    with pytest.raises(ParameterError, match="pass one of the two"):
        rs.encode(model, TensorDataset(LEFT, Y, numbers), ids=numbers)
    with pytest.raises(InputError, match="the numbers in the third repeat"):
        rs.encode(model, TensorDataset(LEFT, Y, numbers // 14))


def test_rows_of_datasets_as_their_processor_makes_them():
    datasets = pytest.importorskip("datasets")
    model = Named().eval()
    table = datasets.Dataset.from_dict({"raw": LEFT.tolist(), "label": Y.tolist(), "name": ["a"] * 20})
    made = table.map(lambda row: {"pixels": row["raw"]})
    expected = model(LEFT)["logits"].detach()
    for data in (
        made.with_format("torch"),
        made,  # lists of numbers
        table.with_transform(
            lambda batch: {"pixels": [torch.tensor(x) for x in batch["raw"]], "labels": batch["label"]}
        ),
    ):
        enc = rs.encode(model, data, batch_size=7)
        np.testing.assert_allclose(np.asarray(enc.logits), expected, atol=1e-6)
        assert enc.labels.tolist() == Y.tolist()
    uneven = datasets.Dataset.from_dict({"pixels": [[0.0] * (1 + i % 3) for i in range(20)]}).with_format("torch")
    with pytest.raises(InputError, match="collate_fn makes them, such as transformers' DataCollatorWithPadding"):
        rs.encode(model, uneven)
