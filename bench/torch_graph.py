"""PyTorch's time for something on a GPU, as a CUDA graph, so that no launch waits for the host."""
import statistics

import torch


def median_ms(run, repeat=1, warm=10, rounds=20):
    """Milliseconds of one `run()`, by device events: the median of `rounds` replays of a graph of `repeat` of them."""
    with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(warm):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            for _ in range(repeat):
                run()
        graph.replay()
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
        for start, end in pairs:
            start.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) / repeat for start, end in pairs)
