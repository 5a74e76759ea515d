"""What an evaluation says of rare classes, against scikit-learn's own."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

import residua as rs


@pytest.mark.filterwarnings("ignore:.*no better than chance")
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("true", [4, 3])  # of five classes
def test_balanced_accuracy_and_macro_f1(true):
    rng = np.random.default_rng(0)
    labels = np.minimum(rng.geometric(0.6, size=200) - 1, true - 1)
    rows = rs.Encoded(rng.normal(size=(200, 2)), rng.normal(size=(200, 5)) + np.eye(5)[labels], labels)
    memory, test = rs.Memory(rows[:100]), rows[100:]
    reader = rs.ResMem(memory, k=5)
    found = rs.evaluate(reader, test)
    for prefix, one in (("base_", rs.ResMem(memory, k=0)), ("", reader)):
        said = one.predict(test)
        balanced, macro = (getattr(found, prefix + name) for name in ("balanced_accuracy", "f1_macro"))
        assert balanced == pytest.approx(balanced_accuracy_score(test.labels, said))
        assert macro == pytest.approx(f1_score(test.labels, said, average="macro"))
        assert found.to_dict()[f"{prefix}f1_macro"] == macro
