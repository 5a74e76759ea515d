import threading

import pytest

pytest.importorskip("starlette", reason="the server: pip install residua[serve]")

import residua as rs
from residua.serving.tenants import Tenant, of_one_model


@pytest.fixture
def tenant(folder):
    return Tenant("mem", rs.load(folder, live=True), folder)


def test_edits_are_on_the_disk_when_the_block_ends(tenant, folder):
    with tenant.editing() as memory:
        memory.forget([3])
    assert 3 not in rs.Memory.load(folder)


def test_nothing_is_read_anew_where_nobody_else_saved(tenant, monkeypatch):
    with tenant.editing() as memory:
        memory.forget([3])
    monkeypatch.setattr(tenant.memory, "refresh", lambda: pytest.fail("it was read anew"))
    tenant.refresh()


def test_an_edit_that_fails_is_none_and_others_are_still_seen(tenant, folder):
    with pytest.raises(rs.errors.IdError), tenant.editing() as memory:
        memory.forget([999])
    rs.Memory.open(folder).forget([4])
    tenant.refresh()
    assert 4 not in tenant.memory and len(tenant.memory) == 59


def test_two_servers_of_one_folder_read_each_others_edits(tenant, folder, rows):
    other = Tenant("mem", rs.load(folder, live=True), folder)
    failed = []

    def edit(one, first):
        for place in range(5):
            with one.editing() as memory:
                memory.add(rs.Encoded(*(getattr(rows(1, first + place), name) for name in ("keys", "logits")), [0]))
            for each in (tenant, other):
                each.refresh()
                if len(each.memory) < 61:
                    failed.append(len(each.memory))

    editing = [threading.Thread(target=edit, args=(one, 10 * n)) for n, one in enumerate((tenant, other))]
    for thread in editing:
        thread.start()
    for thread in editing:
        thread.join()
    for each in (tenant, other):
        each.refresh()
    assert not failed and len(tenant.memory) == len(other.memory) == len(rs.Memory.load(folder)) == 70


def test_memories_of_one_server_are_alike(tenant, tmp_path, rows, network, examples):
    rs.ResMem(rs.Memory(rows(20, task="regression"))).save(tmp_path / "other")
    numbers = Tenant("other", rs.load(tmp_path / "other", live=True), tmp_path / "other")
    with pytest.raises(rs.errors.InputError, match="one server has one model"):
        of_one_model([tenant, numbers])
    import torch

    torch.manual_seed(1)
    nets = [network, torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()]
    made = []
    for n, net in enumerate(nets):
        rs.ResMem(rs.Memory(rs.encode(net, examples(30))), k=3, sigma=1.0).save(tmp_path / f"net{n}")
        made.append(Tenant(f"net{n}", rs.load(tmp_path / f"net{n}", live=True), tmp_path / f"net{n}"))
    with pytest.raises(rs.errors.SourceMismatchError, match="other models"):
        of_one_model(made)
    assert of_one_model(made[:1]) is made[0].memory.source
