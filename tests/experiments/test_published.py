"""The published numbers agree with one another where they must."""

import pytest

from experiments import published


@pytest.mark.parametrize("entry", [published.CIFAR100_RESNET8, published.C4_T5["small"]], ids=["cifar100", "t5"])
def test_gain_is_tpr_minus_fpr_and_the_difference_of_accuracies(entry):
    assert entry["tpr"] - entry["fpr"] == pytest.approx(entry["gain"], abs=0.006)
    # Accuracies are printed with two digits of their own; T5's are of another evaluation of the same model.
    assert entry["resmem"] - entry["base"] == pytest.approx(entry["gain"], abs=0.1)


def test_table_1_and_table_3_have_as_many_numbers_as_columns():
    assert {len(values) for values in published.CIFAR100_EPOCHS.values()} == {5}
    assert len(published.C4_KNNLM["lmbda"]) == len(published.C4_KNNLM["knnlm"]) == 7
    assert max(published.C4_KNNLM["knnlm"]) < published.C4_KNNLM["resmem"]


def test_table_2_improves_every_model_less_and_less():
    gains = [round(row["resmem"] - row["base"], 1) for row in published.IMAGENET_MOBILENET_V2.values()]
    assert gains == [1.0, 0.8, 0.5, 0.5, 0.4]


def test_memory_rows_of_wikitext_103_improve_on_the_base():
    values = published.WIKITEXT103
    tests = [values[name][1] for name in ("base", "cache", "knnlm", "knnlm+cache")]
    assert tests == sorted(tests, reverse=True)
    assert published.WIKITEXT103_KEYS["ffn input after layer norm"] == values["knnlm"][0]
