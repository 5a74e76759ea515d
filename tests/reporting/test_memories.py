"""Memories that helped, harmed, are doubtful, or are there twice, as an audit has them."""

import numpy as np

import residua as rs
from residua.reporting.memories import review_of


def test_lists_are_the_audits_own(rows):
    train = rows(1, 60)
    train.labels[:3] = (train.labels[:3] + 1) % 3
    keys = np.concatenate([train.keys, train.keys[10:12]])
    memory = rs.Memory(
        rs.Encoded(
            keys,
            np.concatenate([train.logits.dense(), train.logits.rows(np.arange(10, 12)).dense()]),
            np.append(train.labels, train.labels[10:12]),
        )
    )
    audit = rs.audit(rs.ResMem(memory, k=5, sigma=1.0), rows(2, 30))
    found = review_of(audit, None, 4)
    order = np.argsort(-audit.influence, kind="stable")
    assert [one.id for one in found.helped] == audit.ids[order[:4]].tolist()
    assert [one.id for one in found.harmed] == audit.ids[order[::-1][:4]].tolist()
    assert sorted((one.id, one.other) for one in found.twice) == [(60, 10), (61, 11)]  # the later ones go
    assert set(one.id for one in found.doubted) & {0, 1, 2} and all(one.doubtful for one in found.doubted)
    assert found.rows == 62 and found.on == "30 test rows" and found.duplicates == 4
    assert review_of(rs.audit(memory), None, 1).on == "62 rows of the memory itself"
