"""What is printed says what was found, also when it is bad news; what is exported is JSON."""

import json
from dataclasses import fields

import numpy as np
import pytest

import residua as rs
from residua.errors import TaskError
from residua.evaluation import Evaluation

PERPLEXITIES = {"perplexity", "base_perplexity", "perplexity_ratio"}


def made(**changed):
    found = {
        "task": "classification",
        "reader": "ResMem",
        "params": {"k": 53, "sigma": 0.7, "temperature": 1.4, "epsilon": None},
        "n": 10_000,
        "objective": "accuracy",
        "n_groups": 10_000,
        "base_accuracy": 0.5964,
        "accuracy": 0.6215,
        "gain": 0.0251,
        "gain_interval": (0.0205, 0.0297),
        "confidence": 0.95,
        "p_value": 1e-30,
        "per_row": {"gain": np.zeros(10_000)},
        "columns": {},
        "names": {},
        "tpr": 0.0413,
        "fpr": 0.0162,
        "base_ece": 0.06,
        "ece": 0.03,
        "base_log_loss": 1.5,
        "log_loss": 1.25,
        "per_class_gain": np.array([0.5, np.nan]),
        "support": np.array([4, 0]),
        "label_knn": 0.574,
    }
    return Evaluation(**{**found, **changed})


def regression(**changed):
    bare = {field.name: None for field in fields(Evaluation) if field.default is None}
    found = {
        "task": "regression",
        "objective": "squared_error",
        "base_mse": 2.0,
        "mse": 0.5,
        "gain": 1.5,
        "gain_interval": (1.25, 1.75),
    }
    r2 = {"base_r2": 0.1, "r2": 0.8, "improved": 0.75, "worsened": 0.25}
    return made(**{**bare, **found, **r2, **changed})


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_classification_table():
    text = str(made())
    assert "ResMem(k=53, sigma=0.7, temperature=1.4) on 10,000 test points" in text
    assert line(text, "accuracy") == ["accuracy", "59.64", "%", "62.15", "%", "+2.51", "points"]
    assert line(text, "log-loss") == ["log-loss", "1.5000", "1.2500", "-0.2500"]
    assert line(text, "calibration") == ["calibration", "error", "6.00", "%", "3.00", "%", "-3.00", "points"]
    assert line(text, "wrong made right")[-2:] == ["4.13", "%"]
    assert line(text, "right made wrong")[-2:] == ["1.62", "%"]
    assert line(text, "label k-NN, same")[-2:] == ["57.40", "%"]
    assert "95 % interval of the gain: +2.05 to +2.97 points" in text
    assert all(row == row.rstrip() for row in text.splitlines())


def test_columns_are_aligned():
    rows = [row for row in str(made()).splitlines() if row.startswith(("accuracy", "calibration", "wrong", "right"))]
    assert len({row.rindex("%") for row in rows}) == 1


def test_tuned_label_knn_has_its_settings():
    text = str(made(label_knn_tuned=0.6, label_knn_params={"k": 20, "sigma": 0.25, "kernel": "exponential"}))
    assert line(text, "label k-NN, k=20, sigma=0.25")[-2:] == ["60.00", "%"]


def test_regression_table():
    text = str(regression(label_knn=0.75))
    assert line(text, "mean squared error")[3:] == ["2", "0.5", "-1.5"]
    assert line(text, "R²")[1:] == ["0.1000", "0.8000", "+0.7000"]
    assert line(text, "points improved")[-2:] == ["75.00", "%"]
    assert line(text, "label k-NN")[-1] == "0.75"
    assert "95 % interval of the fall in squared error: +1.25 to +1.75" in text


def test_verdicts():
    assert made().verdict == (
        "The memory is better than the model alone, and the difference is significant "
        "(McNemar's exact test, p < 0.0001)."
    )
    worse = made(gain=-0.02, p_value=0.001)
    assert "worse" in worse.verdict
    assert "Do not use it like this" in worse.verdict
    unclear = made(p_value=0.2)
    assert not unclear.significant
    assert "not significant at the 0.05 level" in unclear.verdict
    assert "makes no difference" in made(gain=0.0, p_value=1.0).verdict
    assert "randomisation test" in regression().verdict
    assert made(p_value=0.03).significant
    assert not made(p_value=0.03, confidence=0.99).significant


def text(**changed):
    found = {"objective": "log_loss", "n_groups": 12, "perplexity_ratio_interval": (0.7, 0.85)}
    return made(**{**found, **changed})


def test_text_table():
    shown = str(text(tokens_per_second=500.0, base_tokens_per_second=750.0))
    assert "on 10,000 tokens of 12 documents" in shown
    assert line(shown, "perplexity") == ["perplexity", "4.482", "3.490", "-22.1", "%"]
    assert line(shown, "next-token accuracy")[2:] == ["59.64", "%", "62.15", "%", "+2.51", "points"]
    assert line(shown, "calibration")[2:] == ["6.00", "%", "3.00", "%", "-3.00", "points"]
    assert line(shown, "tokens per second") == ["tokens", "per", "second", "750", "500", "1.50x", "the", "time"]
    assert "log-loss" not in shown
    assert "tokens per second" not in str(text())
    assert "tokens per second" not in str(made(tokens_per_second=500.0, base_tokens_per_second=750.0))


def test_verdicts_of_perplexity():
    assert text().verdict == (
        "Perplexity is 22.1 % lower with the memory (95 % interval -30.0 to -15.0 %, 12 documents resampled)."
    )
    assert text().significant and text(p_value=1.0).significant  # not about accuracy
    unclear = text(perplexity_ratio_interval=(0.7, 1.1))
    assert not unclear.significant and "may be chance" in unclear.verdict
    worse = text(log_loss=1.75, perplexity_ratio_interval=(1.1, 1.5))
    assert worse.significant and "28.4 % higher" in worse.verdict and "Do not use it like this" in worse.verdict
    alone = text(perplexity_ratio_interval=None, n_groups=1)
    assert not alone.significant and "one document cannot say" in alone.verdict
    assert "makes no difference" in text(log_loss=1.5).verdict


def test_exact_matches_are_shown_where_there_are_any():
    assert line(str(made(exact_matches=1234)), "same key or id in the memory")[-2:] == ["1,234", "rows"]
    assert "same key" not in str(made())
    assert "leak" not in made(exact_matches=3).verdict
    for result in (made, text):
        doubtful = result(exact_matches=9000, rests_on_matches=True)
        assert not doubtful.significant
        assert "9,000 of 10,000 rows" in doubtful.verdict and "leak" in doubtful.verdict


def test_repr_is_short():
    assert repr(made()) == "Evaluation(ResMem on 10,000 rows: accuracy 59.64 % -> 62.15 %)"
    assert repr(text()) == "Evaluation(ResMem on 10,000 rows: perplexity 4.482 -> 3.490)"
    assert repr(regression()) == "Evaluation(ResMem on 10,000 rows: mean squared error 2 -> 0.5)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("memory", "accuracy or mse"),
        ("base", "base_accuracy or base_mse"),
        ("ece_memory", "ece"),
        ("log_loss_base", "base_log_loss"),
        ("perplexity_memory", "perplexity"),
        ("r2_base", "base_r2"),
        ("documents", "n_groups"),
        ("tokens_per_second_base", "base_tokens_per_second"),
    ],
)
def test_old_names_say_the_new(old, new):
    with pytest.raises(AttributeError, match=f"{old}.*it is '{new}' now"):
        getattr(made(), old)
    for name in new.split(" or "):
        getattr(made(), name)


def test_parameters_are_shown_in_few_digits():
    adaptive = {"edges": [1.0], "shares": [0.81234, 0.1]}
    inner = {"reader": "KNNLM", "params": {"k": 8, "lmbda": 0.123456}}
    assert "KNNLM(k=8, lmbda=0.1 to 0.81 by distance)" in str(made(reader="KNNLM", params={"k": 8, "lmbda": adaptive}))
    assert "(over=KNNLM(k=8, lmbda=0.1235))" in str(made(reader="ContinuousCache", params={"over": inner}))


def test_to_dict_is_json_and_complete():
    found = made().to_dict()
    left = {"per_row", "columns", "names", "seconds_per_row"}
    assert set(found) == {field.name for field in fields(Evaluation)} - left | PERPLEXITIES
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert again["per_class_gain"] == [0.5, None]
    assert again["gain_interval"] == [0.0205, 0.0297]
    assert again["support"] == [4, 0]
    assert again["perplexity"] == pytest.approx(np.exp(1.25))
    assert regression().to_dict()["perplexity_ratio"] is None


def test_a_vocabulary_is_not_exported_class_by_class():
    wide = made(per_class_gain=np.zeros(1001), support=np.zeros(1001, int))
    assert {"per_class_gain", "support"} & set(wide.to_dict()) == set()
    assert len(wide.per_class_gain) == 1001


def uneven():
    """Three classes of 40, 10 and 2 test rows; the memory knows the rare one, and the model does not."""
    labels = np.repeat([0, 1, 2], [40, 10, 2])
    keys = np.stack([np.arange(52.0), 10.0 * labels], axis=1)
    logits = np.where(labels[:, None] == 1, [0.0, 2.0, 0.0], [2.0, 0.0, 0.0])
    memory = rs.Memory(rs.Encoded(keys + np.array([0.25, 0]), logits, labels))
    return rs.evaluate(rs.ResMem(memory, k=1), rs.Encoded(keys, logits, labels))


def test_each_class_and_the_rare_ones():
    pytest.importorskip("pandas")
    result = uneven()
    frame = result.per_class(["many", "some", "few"])
    assert frame["class"].tolist() == ["many", "some", "few"]
    assert frame.support.tolist() == frame.remembered.tolist() == [40, 10, 2]
    assert frame.base_recall.tolist() == [1, 1, 0] and frame.recall.tolist() == [1, 1, 1]
    assert frame.base_precision.round(3).tolist()[:2] == [0.952, 1] and np.isnan(frame.base_precision[2])
    assert frame.gain.tolist() == [0, 0, 1] == result.per_class_gain.tolist()
    assert result.by_rarity == {
        "rarest third of classes": (0, 1), "middle third": (1, 1), "most frequent third": (1, 1)
    }  # fmt: skip
    shown = str(result)
    assert "balanced accuracy" in shown and "macro F1" in shown and "rarest third of classes" in shown
    assert result.balanced_accuracy == 1 and result.base_balanced_accuracy == pytest.approx(2 / 3)


def test_even_classes_are_not_cut_by_rarity():
    labels = np.arange(30) % 3
    rows = rs.Encoded(np.eye(3)[labels], np.zeros((30, 3)), labels)
    result = rs.evaluate(rs.ResMem(rs.Memory(rows), k=1, sigma=1.0), rows)
    assert result.by_rarity == {} and "balanced accuracy" not in str(result)
    numbers = rs.Encoded([[0.0], [1.0]], [0.0, 1.0], [0.5, 0.5])
    with pytest.raises(TaskError, match="no classes"):
        rs.evaluate(rs.ResMem(rs.Memory(numbers), k=1), numbers).per_class()
