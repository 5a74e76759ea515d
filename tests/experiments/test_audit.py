"""Parts of the audit experiment on a few rows; no network is trained."""

import numpy as np

import residua as rs
from experiments import audit


def blobs(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return rs.Encoded(rng.normal(size=(n, 2)) + 4 * np.eye(3)[labels][:, :2], 3 * np.eye(3)[labels], labels)


def test_the_parts_on_a_few_rows(tmp_path):
    rows, test = blobs(90), blobs(30, 1)
    truth = rows.labels.copy()
    rows.labels[:9] = (rows.labels[:9] + 1) % 3
    found = rs.audit(rs.Memory(rows))
    wrong = truth != rows.labels
    scores = {"audit": audit.detected(wrong, -found.margin), "base": audit.detected(wrong, np.arange(90.0))}
    assert scores["audit"]["auroc"] > 0.9 > 0.1 > scores["base"]["auroc"]
    mended = audit.mended(rows, test, truth, found)
    assert mended["the truth"]["label_knn"] >= mended["as it is"]["label_knn"]
    for name, some in (("rows", rows), ("test", test)):
        some.save(tmp_path / f"{name}.npz")
    spent = audit.spent_on(tmp_path / "rows.npz", tmp_path / "test.npz")
    assert spent["missed"] < 1e-12 and spent["n"] == 30
    results = {"n": 90, "wrong": 9, "found": scores, "datalab": None, "cost": spent, "mended": mended}
    assert set(audit.tables(results)) == {"found", "cost", "mended"}
    assert audit.draw(results).axes
