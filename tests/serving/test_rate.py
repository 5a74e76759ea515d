from residua.serving.rate import Rate


def test_a_second_brings_as_many_as_the_rate():
    now = [0.0]
    rate = Rate(5, clock=lambda: now[0])
    passed = 0
    for step in range(1000):
        now[0] = step / 100
        passed += rate.wait("ada") == 0
    assert 5 * 10 <= passed <= 5 * 10 + 5


def test_without_a_rate_all_pass():
    rate = Rate(None)
    assert all(rate.wait("ada") == 0 for _ in range(100))


def test_below_one_a_second_one_passes_at_once():
    now = [0.0]
    rate = Rate(0.1, clock=lambda: now[0])
    assert rate.wait("ada") == 0 and round(rate.wait("ada"), 6) == 10
