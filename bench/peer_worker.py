"""One library in a process of its own, driven by lines of JSON. Started by peers.py; prints one line for each it reads.

    {"prepare": layer}   build the layer, check some of its outputs in f64, warm up
    {"time": seconds}    time calls for about so long: {"min": ms, "median": ms, "disturbed": 0 to 2, "calls": [n, n, n]}
"""
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time

import numpy as np

LEAST_CALLS = 3
# Most wall time of a turn, as a multiple of the time asked for.
PATIENCE = 8


def full(layer):
    """A layer with every field there."""
    out = dict({"r": 3, "stride": 1, "groups": 1}, **layer)
    out["r"] = out["r"] if isinstance(out["r"], list) else [out["r"]] * 2
    out["padding"] = [taps // 2 for taps in out["r"]]
    return out


def data(layer):
    """Input and weight: standard normal, the weight scaled to keep the variance near 1."""
    rng = np.random.default_rng(0)
    if "matmul" in layer:
        m, n, k = layer["matmul"]
        x, w = (m, k), (k, n)
        terms = k
    else:
        x = (layer["n"], layer["c"], layer["h"], layer["w"])
        w = (layer["k"], layer["c"] // layer["groups"], *layer["r"])
        terms = w[1] * w[2] * w[3]
    scale = np.float32(1 / np.sqrt(terms))
    return rng.standard_normal(x, dtype=np.float32), rng.standard_normal(w, dtype=np.float32) * scale


def check(layer, x, w, y):
    """Compares some outputs with their sums in f64."""
    rng = np.random.default_rng(1)
    for _ in range(16):
        at = tuple(int(rng.integers(d)) for d in y.shape)
        if "matmul" in layer:
            exact = x[at[0]].astype(np.float64) @ w[:, at[1]].astype(np.float64)
        else:
            n, k, i, j = at
            r, s, p = layer["r"], layer["stride"], layer["padding"]
            c = layer["c"] // layer["groups"]
            first = k // (layer["k"] // layer["groups"]) * c
            exact = 0.0
            for a in range(r[0]):
                for b in range(r[1]):
                    u, v = i * s + a - p[0], j * s + b - p[1]
                    if 0 <= u < layer["h"] and 0 <= v < layer["w"]:
                        exact += x[n, first:first + c, u, v].astype(np.float64) @ w[k, :, a, b].astype(np.float64)
        if not abs(y[at] - exact) < 1e-3:
            raise ValueError(f"output {at} is {y[at]}, but the sum is {exact}")


def torch_calls(layer, x, w, threads, layout):
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    if "matmul" in layer:
        if layout != "NCHW":
            return None
        return (lambda: torch.mm(x, w)), lambda y: y.numpy()
    if layout == "NHWC":
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
    how = {"stride": layer["stride"], "padding": layer["padding"], "groups": layer["groups"]}
    if layout == "prepared":
        # oneDNN keeps the weight in its own layout.
        conv = torch.nn.Conv2d(layer["c"], layer["k"], layer["r"], bias=False, **how).eval()
        conv.weight.data = w
        module = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(conv, x)))
        return (lambda: module(x)), lambda y: y.numpy()
    return (lambda: functional.conv2d(x, w, **how)), lambda y: y.contiguous().numpy()


def onnx_model(layer, x, w):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if "matmul" in layer:
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    else:
        r, s, p = layer["r"], layer["stride"], layer["padding"]
        node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=r, strides=[s, s], pads=p * 2,
                                group=layer["groups"])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "layer", [given], [result], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


def onnxruntime_calls(layer, x, w, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx_model(layer, x, w), options, providers=["CPUExecutionProvider"])
    return (lambda: session.run(None, {"x": x})), lambda y: y[0]


def openvino_calls(layer, x, w, threads):
    import openvino

    core = openvino.Core()
    model = core.read_model(onnx_model(layer, x, w), b"")
    how = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", how).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))
    return request.infer, lambda _: request.get_output_tensor().data


def ncnn_calls(layer, x, w, threads, winograd):
    import ncnn

    net = ncnn.Net()
    opt = net.opt
    opt.num_threads = threads
    opt.use_vulkan_compute = False
    opt.use_winograd_convolution = winograd
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(opt, name, False)
    if "matmul" in layer:
        if not winograd:
            return None
        m, n, k = layer["matmul"]
        # The second factor is constant.
        op = f"Gemm g 1 1 x y 2=0 3=0 4=0 5=1 6=1 7=0 8={n} 9={k} 10=-1"
        x = x[None]
    else:
        (high, wide), (above, beside) = layer["r"], layer["padding"]
        same = f"0={layer['k']} 1={wide} 11={high} 3={layer['stride']} 4={beside} 14={above} 5=0 6={w.size}"
        op = f"Convolution c 1 1 x y {same}"
        if layer["groups"] > 1:
            op = f"ConvolutionDepthWise c 1 1 x y {same} 7={layer['groups']}"
    with tempfile.TemporaryDirectory() as folder:
        param, model = os.path.join(folder, "layer.param"), os.path.join(folder, "layer.bin")
        with open(param, "w") as f:
            f.write(f"7767517\n2 2\nInput in 0 1 x\n{op}\n")
        with open(model, "wb") as f:
            f.write(np.zeros(1, np.uint32).tobytes() + w.tobytes())
        if net.load_param(param) != 0 or net.load_model(model) != 0:
            raise ValueError("ncnn cannot load the layer")
    images = [ncnn.Mat(image).clone() for image in x]

    def call():
        out = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input("x", image)
            out.append(extractor.extract("y")[1])
        return out

    # The network has to outlive its extractors.
    call.net = net
    return call, lambda y: np.array(y[0]) if "matmul" in layer else np.stack([np.array(o) for o in y])


class RustJob:
    """A layer in the library of rust_peers, whose path is in the variable WINOGRAPH_RUST_PEERS."""

    def __init__(self, function, *args):
        lib = self.lib = ctypes.CDLL(os.environ["WINOGRAPH_RUST_PEERS"])
        for name, kind in (("peer_tract", ctypes.c_void_p), ("peer_candle", ctypes.c_void_p),
                           ("peer_output", ctypes.c_ssize_t)):
            getattr(lib, name).restype = kind
        self.job = None
        self.job = ctypes.c_void_p(getattr(lib, function)(*args) or self.fail())

    def fail(self):
        message = ctypes.create_string_buffer(400)
        self.lib.peer_error(message, ctypes.c_size_t(len(message)))
        raise ValueError(message.value.decode(errors="replace"))

    def __call__(self):
        if self.lib.peer_call(self.job) != 0:
            self.fail()

    def result(self, shape):
        out = np.full(shape, np.nan, np.float32)
        got = self.lib.peer_output(self.job, ctypes.c_void_p(out.ctypes.data), ctypes.c_size_t(out.size))
        if got < 0:
            self.fail()
        if got != out.size:
            raise ValueError(f"a result of {got} elements, expected {out.size}")
        return out

    def __del__(self):
        if self.job is not None:
            self.lib.peer_end(self.job)


def sizes(shape):
    return (ctypes.c_size_t * len(shape))(*shape)


def output_shape(layer, x, w):
    if "matmul" in layer:
        return x.shape[0], w.shape[1]
    places = [(size + 2 * p - r) // layer["stride"] + 1
              for size, p, r in zip(x.shape[2:], layer["padding"], layer["r"])]
    return x.shape[0], w.shape[0], *places


def tract_calls(layer, x, w, threads):
    model = onnx_model(layer, x, w)
    job = RustJob("peer_tract", model, ctypes.c_size_t(len(model)), ctypes.c_void_p(x.ctypes.data), sizes(x.shape),
                  ctypes.c_size_t(x.ndim), ctypes.c_size_t(threads))
    return job, lambda _: job.result(output_shape(layer, x, w))


def candle_calls(layer, x, w, threads):
    conv = None
    if "matmul" not in layer:
        if layer["padding"][0] != layer["padding"][1]:
            return None  # it has one padding for both axes
        conv = sizes((layer["stride"], layer["padding"][0], layer["groups"]))
    job = RustJob("peer_candle", ctypes.c_void_p(x.ctypes.data), sizes(x.shape), ctypes.c_void_p(w.ctypes.data),
                  sizes(w.shape), ctypes.c_size_t(x.ndim), conv)
    return job, lambda _: job.result(output_shape(layer, x, w))


CALLS = {
    "torch": lambda *a: torch_calls(*a, "NCHW"),
    "torch-nhwc": lambda *a: torch_calls(*a, "NHWC"),
    "torch-prepared": lambda *a: None if "matmul" in a[0] else torch_calls(*a, "prepared"),
    "onnxruntime": onnxruntime_calls,
    "openvino": openvino_calls,
    "ncnn": lambda *a: ncnn_calls(*a, True),
    "ncnn-direct": lambda *a: ncnn_calls(*a, False),
    "tract": tract_calls,
    "candle": candle_calls,
}


def prepare(library, threads, layer):
    """The call to time, or None where the library has nothing of the kind; a function of the result as an array."""
    layer = full(layer)
    x, w = data(layer)
    found = CALLS[library](layer, x, w, threads)
    if found is None:
        return None
    call, array = found
    check(layer, x, w, array(call()))
    for _ in range(2):
        call()
    return call


def waited():
    """Seconds that the threads of this process were ready to run and had no core, so far."""
    total = 0
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/schedstat") as f:
                total += int(f.read().split()[1])
        except OSError:
            pass  # it has ended
    return total * 1e-9


def others():
    """Number of threads of other processes that run or want to."""
    own = 0
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/stat") as f:
                own += f.read().rsplit(")", 1)[1].split()[0] == "R"
        except OSError:
            pass
    with open("/proc/loadavg") as f:
        return int(f.read().split()[3].split("/")[0]) - own


def timed(call, seconds, threads):
    """Times calls for so many seconds. Other programs on the machine disturb libraries differently (one that spins at
    barriers suffers most), so the calls that they disturbed least are the ones that count: those with a core for each
    thread before and after and no thread kept waiting; else those with no thread kept waiting; else all."""
    spare = len(os.sched_getaffinity(0)) - threads
    # The first call finds another process's data in the caches.
    call()
    times = ([], [], [])
    started = time.perf_counter()
    while True:
        busy, before = others(), waited()
        start = time.perf_counter()
        result = call()
        took = time.perf_counter() - start
        del result
        kept_waiting = waited() - before > max(0.01 * took, 2e-6)
        times[2 if kept_waiting else int(max(busy, others()) > spare)].append(took * 1e3)
        if len(times[0]) >= LEAST_CALLS and sum(times[0]) >= seconds * 1e3:
            break
        if time.perf_counter() - started > PATIENCE * seconds and sum(map(len, times)) >= LEAST_CALLS:
            break
    best = next(i for i in range(3) if len(times[i]) >= LEAST_CALLS or i == 2)
    kept = sum(times[: best + 1], [])
    return {"min": min(kept), "median": statistics.median(kept), "disturbed": best, "calls": [len(t) for t in times]}


def main():
    library, threads = sys.argv[1], int(sys.argv[2])
    # Libraries print; the answers go to a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    call = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "prepare" in asked:
                call = None
                call = prepare(library, threads, asked["prepare"])
                answer = {"has": call is not None}
            else:
                answer = timed(call, asked["time"], threads)
        except Exception as e:  # a peer's failure is a result like any other
            answer = {"error": f"{type(e).__name__}: {e}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
