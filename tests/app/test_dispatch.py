from __future__ import annotations

import random
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.app.waiting import LONG, soon
from tutelage.app.pipeline.dispatch import Dispatch, Taker
from tutelage.app.pipeline.job import FrameJob
from tutelage.app.sources.frames import Frame


def _job(index: int) -> FrameJob:
    return FrameJob(Frame(index, str(index)), 0.0, 0.0)


@given(
    takers=st.integers(1, 5),
    capacity=st.integers(1, 6),
    permits=st.integers(1, 6),
    drops=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_every_job_is_taken_once_or_dropped_whatever_the_threads_do(
    takers: int, capacity: int, permits: int, drops: bool, seed: int
) -> None:
    count = 200
    dispatch = Dispatch(capacity, permits, drops)
    taken: list[FrameJob] = []
    lock = threading.Lock()

    def write() -> None:
        chance = random.Random(seed)
        for index in range(count):
            assert dispatch.wait_for_room()
            assert drops or len(dispatch) < capacity
            assert dispatch.put(_job(index))
            if chance.random() < 0.1:
                time.sleep(0.0005)
        dispatch.close()

    def take(number: int) -> None:
        chance = random.Random(seed + number)
        me = Taker(group=number % 2)
        while True:
            job = dispatch.take(me, block=chance.random() < 0.9)
            if job is None:
                job = dispatch.take(me, block=True)
                if job is None:
                    return
            with lock:
                taken.append(job)
            if chance.random() < 0.1:
                time.sleep(0.0005)
            dispatch.release()

    threads = [threading.Thread(target=take, args=(n,)) for n in range(takers)]
    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert len(taken) + dispatch.dropped == count and (drops or not dispatch.dropped)
    by_ticket = sorted(taken, key=lambda job: job.ticket)
    assert [job.ticket for job in by_ticket] == list(range(len(taken)))
    indices = [job.frame.index for job in by_ticket]
    assert indices == sorted(set(indices))  # tickets follow the order of the frames
    assert len(dispatch) == 0


@given(takers=st.integers(1, 5), permits=st.integers(1, 6), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_every_job_that_is_fetched_is_taken_once_and_in_order(
    takers: int, permits: int, seed: int
) -> None:
    jobs = iter([_job(index) for index in range(200)])
    dispatch = Dispatch(1, permits, fetch=lambda: next(jobs, None))
    taken: list[FrameJob] = []

    def take(number: int) -> None:
        chance = random.Random(seed + number)
        me = Taker(group=number % 2)
        while (job := dispatch.take(me, block=True)) is not None:
            taken.append(job)
            if chance.random() < 0.1:
                time.sleep(0.0005)
            dispatch.release()

    threads = [threading.Thread(target=take, args=(n,)) for n in range(takers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert sorted(job.frame.index for job in taken) == list(range(200))
    assert all(job.ticket == job.frame.index for job in taken)


def test_a_closed_source_fetches_nothing() -> None:
    dispatch = Dispatch(1, fetch=lambda: _job(0))
    me = Taker()
    assert dispatch.take(me, block=True) is not None
    dispatch.close()
    assert dispatch.take(me, block=True) is None


def test_permits_bound_the_unfinished_jobs() -> None:
    dispatch = Dispatch(capacity=10, permits=2)
    for index in range(5):
        dispatch.put(_job(index))
    me = Taker()
    assert [bool(dispatch.take(me, block=False)) for _ in range(3)] == [True, True, False]
    dispatch.release()
    assert dispatch.take(me, block=False) is not None


def test_the_oldest_is_dropped() -> None:
    dispatch = Dispatch(capacity=3, permits=9, drops=True)
    for index in range(10):
        dispatch.put(_job(index))
    me = Taker()
    found = [dispatch.take(me, block=False) for _ in range(3)]
    assert [job.frame.index for job in found if job] == [7, 8, 9] and dispatch.dropped == 7


def test_a_job_goes_to_the_group_that_has_least_to_do() -> None:
    dispatch = Dispatch(capacity=3)
    takers = [Taker(0), Taker(1), Taker(1)]
    found: dict[int, FrameJob | None] = {}

    def wait(number: int) -> None:
        found[number] = dispatch.take(takers[number], block=True)

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        assert soon(lambda count=number: len(dispatch._idle) > count)  # type: ignore[misc]
    dispatch.put(_job(0))
    dispatch.put(_job(1))
    threads[1].join(LONG)
    threads[0].join(LONG)
    assert found[1] and found[1].frame.index == 0 and found[0] and found[0].frame.index == 1
    dispatch.close()
    threads[2].join(LONG)
    assert found[2] is None and not dispatch.put(_job(2))


def test_closing_wakes_a_writer_that_waits() -> None:
    dispatch = Dispatch(capacity=1)
    dispatch.put(_job(0))
    said: list[bool] = []
    writer = threading.Thread(target=lambda: said.append(dispatch.wait_for_room()))
    writer.start()
    assert soon(lambda: dispatch._writer_waits)
    assert not said
    dispatch.close()
    writer.join(LONG)
    assert said == [False]
