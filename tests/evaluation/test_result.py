"""What is printed says what was found, also when it is bad news; what is exported is JSON."""

import json
from dataclasses import fields

import numpy as np

from residua.evaluation import Evaluation


def made(**changed):
    found = {
        "task": "classification",
        "reader": "ResMem",
        "params": {"k": 53, "sigma": 0.7, "temperature": 1.4, "epsilon": None},
        "n": 10_000,
        "base": 0.5964,
        "memory": 0.6215,
        "gain": 0.0251,
        "gain_interval": (0.0205, 0.0297),
        "confidence": 0.95,
        "p_value": 1e-30,
        "tpr": 0.0413,
        "fpr": 0.0162,
        "ece_base": 0.06,
        "ece_memory": 0.03,
        "log_loss_base": 1.5,
        "log_loss_memory": 1.25,
        "per_class_gain": np.array([0.5, np.nan]),
        "support": np.array([4, 0]),
        "label_knn": 0.574,
    }
    return Evaluation(**{**found, **changed})


def regression(**changed):
    bare = {field.name: None for field in fields(Evaluation) if field.default is None}
    found = {"task": "regression", "base": 2.0, "memory": 0.5, "gain": 1.5, "gain_interval": (1.25, 1.75)}
    r2 = {"r2_base": 0.1, "r2_memory": 0.8, "improved": 0.75, "worsened": 0.25}
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


def test_to_dict_is_json_and_complete():
    found = made().to_dict()
    assert set(found) == {field.name for field in fields(Evaluation)}
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert again["per_class_gain"] == [0.5, None]
    assert again["gain_interval"] == [0.0205, 0.0297]
    assert again["support"] == [4, 0]
