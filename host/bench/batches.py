"""Preprocessed batches for Offline, by one thread or several.

A GPU leaves the CPUs free, which preprocess the next batch while it runs one, as implementations of
MLPerf Inference's Offline do. On a CPU both would compete for the same cores: preprocessing then
takes turns with the network, and each has all threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle

from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.platform import Floats
from tutelage.host.bench.subject_files import Image

_ROUNDS = 3  # of which the shortest counts

_Shares = Callable[[Floats], list[Callable[[], None]]]
"""Returns the work of each thread to fill a buffer with the next batch."""


def prepared_batches(
    preprocessors: Sequence[FloatPreprocessor],
    take: Callable[[], Sequence[Image]],
    buffers: Sequence[Floats],
) -> Generator[Floats, None, None]:
    """Yield preprocessed batches without end; each is valid until the next one is requested.

    Nothing happens before the first one is requested. `close` waits for the threads.

    Parameters
    ----------
    preprocessors : one for each thread
    take : returns the images of the next batch
    buffers : memory for a batch; with two, the next batch is preprocessed while the caller uses one
    """
    step = len(preprocessors)

    def shares(buffer: Floats) -> list[Callable[[], None]]:
        images = take()
        return [
            partial(preprocess.fill, images[first::step], buffer[first::step])
            for first, preprocess in enumerate(preprocessors)
        ]

    with ThreadPoolExecutor(step) as pool:
        yield from (_in_turn if len(buffers) == 1 else _ahead)(pool, shares, buffers)


def _in_turn(
    pool: ThreadPoolExecutor, shares: _Shares, buffers: Sequence[Floats]
) -> Iterator[Floats]:
    for buffer in cycle(buffers):
        own, *others = shares(buffer)
        running = [pool.submit(share) for share in others]
        own()
        for share in running:
            share.result()
        yield buffer


def _ahead(
    pool: ThreadPoolExecutor, shares: _Shares, buffers: Sequence[Floats]
) -> Iterator[Floats]:
    one, other = buffers
    running = [pool.submit(share) for share in shares(one)]
    for ready, free in cycle([(one, other), (other, one)]):
        for share in running:
            share.result()
        running = [pool.submit(share) for share in shares(free)]
        yield ready


def faster(
    preprocessors: Sequence[FloatPreprocessor],
    images: Sequence[Image],
    clock: Callable[[], float] = time.perf_counter,
) -> Sequence[FloatPreprocessor]:
    """Return all preprocessors, or only the first if that is faster.

    With small images, threads spend their time waiting for Python's lock.

    Parameters
    ----------
    images : a batch to try with
    clock : time, s
    """
    candidates = [preprocessors[:1], preprocessors]
    shortest = [_shortest(each, images, clock) for each in candidates]
    return candidates[shortest.index(min(shortest))]


def _shortest(
    preprocessors: Sequence[FloatPreprocessor],
    images: Sequence[Image],
    clock: Callable[[], float],
) -> float:
    buffers = [preprocessors[0].empty(len(images))]
    batches = prepared_batches(preprocessors, lambda: images, buffers)
    next(batches)  # starts the threads
    times = []
    for _ in range(_ROUNDS):
        start = clock()
        next(batches)
        times.append(clock() - start)
    batches.close()
    return min(times)
