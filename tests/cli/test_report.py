import json

import residua as rs


def test_report_is_the_verb_of_the_library(run, mem, encoded, here):
    rs.ResMem(rs.Memory.load(mem), k=5, sigma=0.8, temperature=1.5).save(mem)
    words = ["report", "mem", "test.npz", "--calibration", "val.npz", "--seed", 3, "--title", "A <page>"]
    done = run(*words, "-o", "page.html")
    options = {"calibration": encoded["val"], "seed": 3, "title": "A <page>", "path": None}
    expected = rs.report(rs.load(mem), encoded["test"], **options)
    assert done.stdout.splitlines()[-1] == "page.html" and done.stdout.startswith("A <page>\nResMem(k=5")
    assert (here / "page.html").read_text(encoding="utf-8").count("<svg") == expected.html.count("<svg")
    data = json.loads(run(*words, "--json").stdout)
    assert data["path"] == "report.html" and (here / "report.html").exists()
    assert data["evaluation"] == json.loads(json.dumps(expected.result.to_dict()))
    assert data["harmed"] == [one.id for one in expected.review.harmed]
    assert f"residua forget mem --id {data['harmed'][0]}" in done.stderr


def test_an_audit_can_be_left_out_and_a_reader_named(run, mem):
    words = ["report", "mem", "test.npz", "--reader", "knnlm", "--k", 3, "--lmbda", 0.5, "--no-audit", "--json"]
    data = json.loads(run(*words).stdout)
    assert data["harmed"] is None and data["evaluation"]["params"]["lmbda"] == 0.5
    assert "without a reader" in run("report", "mem", "test.npz", "--k", 3, code=1).stderr


def test_a_folder_of_pictures_is_there(run, mem):
    done = run("report", "mem", "test.npz", "--reader", "resmem", "--images", "none", code=1)
    assert "there is no folder none" in done.stderr
    assert "--images is not for --text" in run("report", "mem", "--text", ".", "--images", ".", code=2).stderr
