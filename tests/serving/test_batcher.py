import asyncio
import threading

import pytest

pytest.importorskip("starlette", reason="the server: pip install residua[serve]")

from residua.serving.batcher import Batcher
from residua.serving.failures import Refused
from residua.serving.line import Line


def batcher(answer, most=8, wait=0.05, queue=100):
    return Batcher(answer, Line(queue), most, wait, queue)


def test_what_arrives_together_is_answered_together():
    seen = []

    def double(numbers):
        seen.append(list(numbers))
        return [2 * one for one in numbers]

    async def main():
        asked = batcher(double)
        sizes = []
        asked.sizes = sizes.append
        answers = await asyncio.gather(*(asked.ask(n, 1, 5) for n in range(20)))
        return answers, sizes

    answers, sizes = asyncio.run(main())
    assert answers == [2 * n for n in range(20)]
    assert [len(batch) for batch in seen] == sizes == [8, 8, 4]


def test_a_question_that_is_larger_than_a_batch_is_one_by_itself():
    seen = []

    async def main():
        asked = batcher(lambda questions: seen.append(list(questions)) or list(questions))
        return await asyncio.gather(asked.ask("large", 50, 5), asked.ask("small", 1, 5))

    assert asyncio.run(main()) == ["large", "small"] and seen == [["large"], ["small"]]


def test_each_asker_gets_its_own_error():
    def some(numbers):
        return [ValueError(str(one)) if one % 2 else one for one in numbers]

    async def main():
        asked = batcher(some)
        return await asyncio.gather(*(asked.ask(n, 1, 5) for n in range(4)), return_exceptions=True)

    told = asyncio.run(main())
    assert told[::2] == [0, 2] and [str(one) for one in told[1::2]] == ["1", "3"]


def test_an_error_of_the_whole_batch_reaches_all_and_the_next_batch_is_answered():
    broken = True

    def answer(numbers):
        if broken:
            raise RuntimeError("broken")
        return list(numbers)

    async def main():
        nonlocal broken
        asked = batcher(answer)
        first = await asyncio.gather(*(asked.ask(n, 1, 5) for n in range(3)), return_exceptions=True)
        broken = False
        return first, await asked.ask(7, 1, 5)

    first, then = asyncio.run(main())
    assert [type(one) for one in first] == [RuntimeError] * 3 and then == 7


def test_who_waits_too_long_is_refused_and_is_not_asked_for_again():
    seen, go = [], threading.Event()

    def slow(questions):
        seen.extend(questions)
        go.wait(5)
        return list(questions)

    async def main():
        asked = batcher(slow, most=1, wait=0)
        first = asyncio.create_task(asked.ask("first", 1, 5))
        await asyncio.sleep(0.02)
        with pytest.raises(Refused, match="no answer within") as refused:
            await asked.ask("second", 1, 0.05)
        go.set()
        third = await asked.ask("third", 1, 5)
        return refused.value.status, await first, third

    assert asyncio.run(main()) == (503, "first", "third") and seen == ["first", "third"]


def test_a_full_queue_takes_no_more():
    go = threading.Event()

    async def main():
        asked = batcher(lambda questions: go.wait(5) and list(questions), most=1, wait=0, queue=2)
        waiting = []
        for n in range(3):
            waiting.append(asyncio.create_task(asked.ask(n, 1, 5)))
            await asyncio.sleep(0.02)  # the first is being answered
        assert len(asked) == 2
        with pytest.raises(Refused, match="too many") as refused:
            await asked.ask(9, 1, 5)
        go.set()
        return refused.value.headers, await asyncio.gather(*waiting)

    assert asyncio.run(main()) == ({"retry-after": "1"}, [0, 1, 2])


def test_what_was_begun_is_waited_for_and_what_was_not_is_never_done():
    done, go = [], threading.Event()

    def work(name):
        go.wait(5)
        done.append(name)
        return name

    async def main():
        line = Line(10)
        first = asyncio.create_task(line.do(work, "first", limit=0.05))
        await asyncio.sleep(0.02)
        with pytest.raises(Refused, match="nothing was done"):
            await line.do(work, "second", limit=0.05)
        await asyncio.sleep(0.02)
        assert len(line) == 1 and not first.done()
        go.set()
        return await first

    assert asyncio.run(main()) == "first" and done == ["first"]
