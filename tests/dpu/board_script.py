"""A typical script for the board: threads with a runner each and many jobs in flight.

It does not depend on the emulation and runs unmodified under `tutelage shim`:
    board_script.py MODEL IMAGES.npy OUT.npy [THREADS]
"""

import sys
import threading

import numpy as np
import vart
import xir

JOBS_IN_FLIGHT = 8


def get_child_subgraph_dpu(graph):
    root = graph.get_root_subgraph()
    if root.is_leaf:
        return []
    children = root.toposort_child_subgraph()
    assert children is not None and len(children) > 0
    return [c for c in children if c.has_attr("device") and c.get_attr("device").upper() == "DPU"]


def run(runner, images, results, indices):
    input_tensor = runner.get_input_tensors()[0]
    output_tensor = runner.get_output_tensors()[0]
    scale = 2 ** input_tensor.get_attr("fix_point")
    inputs = [np.empty(tuple(input_tensor.dims), np.int8, "C") for _ in range(JOBS_IN_FLIGHT)]
    outputs = [np.empty(tuple(output_tensor.dims), np.int8, "C") for _ in range(JOBS_IN_FLIGHT)]
    for start in range(0, len(indices), JOBS_IN_FLIGHT):
        batch = indices[start : start + JOBS_IN_FLIGHT]
        jobs = []
        for slot, index in enumerate(batch):
            inputs[slot][0] = np.clip(np.floor(images[index] * scale + 0.5), -128, 127)
            jobs.append(runner.execute_async([inputs[slot]], [outputs[slot]]))
        for slot, index in enumerate(batch):
            runner.wait(jobs[slot])
            results[index] = outputs[slot][0] / 2.0 ** output_tensor.get_attr("fix_point")


def main(argv):
    graph = xir.Graph.deserialize(argv[1])
    subgraphs = get_child_subgraph_dpu(graph)
    assert len(subgraphs) == 1
    images = np.load(argv[2])
    threads = int(argv[4]) if len(argv) > 4 else 3
    runners = [vart.Runner.create_runner(subgraphs[0], "run") for _ in range(threads)]
    results = [None] * len(images)
    workers = [
        threading.Thread(target=run, args=(r, images, results, range(i, len(images), threads)))
        for i, r in enumerate(runners)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.save(argv[3], np.array(results, np.float32))
    del runners
    print("done", len(images))


if __name__ == "__main__":
    main(sys.argv)
