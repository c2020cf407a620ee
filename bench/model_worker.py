"""Parts of models.py that need packages: inputs and weights, one library in a process of its own, comparing.

    model_worker.py make NAME FILE CASE SHAPES     CASE/model.onnx, inputs, and ONNX Runtime's outputs; of ncnn's two files,
                                                   PARAM:BIN, CASE/model.param, inputs and ncnn's outputs
    model_worker.py compare CASE LIBRARY...        relative L2 distance of outputs from what is expected, and PSNR, as JSON
    model_worker.py LIBRARY THREADS CASE           a report as a line of JSON, then one for each {"time": seconds}
"""
import json
import os
import shutil
import sys
import time
import zlib

import numpy as np

from peer_worker import timed


def weight(name, shape, users):
    """Random numbers for a constant, by what reads it: they keep the variance of what flows through near 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    op, place = users[0] if users else ("", 0)
    if op == "Conv" and place == 1:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif op == "Gemm" and place == 1:
        values = rng.standard_normal(shape) / np.sqrt(shape[1])
    elif op == "Mul" or op == "BatchNormalization" and place in (1, 4):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def fill(model):
    """Puts random weights in place of the constant ones of a `light` model; gives the name of what the last layer with
    weights computes and of its weight and bias."""
    from onnx import numpy_helper

    graph = model.graph
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    users, same = {}, {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            users.setdefault(name, []).append((node.op_type, place))
        if node.op_type == "Unsqueeze":
            same[node.input[0]] = node.output[0]
    kept, made = [], []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            name, shape = node.output[0], [int(n) for n in known[node.input[0]]]
            made.append(numpy_helper.from_array(weight(name, shape, users.get(same.get(name, name))), name))
        else:
            kept.append(node)
    read = {name for node in kept for name in node.input}
    weights = [t for t in graph.initializer if t.name in read] + made
    names = {t.name for t in weights}
    inputs = [i for i in graph.input if i.name in read and i.name not in names]
    for field, values in ((graph.node, kept), (graph.initializer, weights), (graph.input, inputs)):
        del field[:]
        field.extend(values)
    last = [n for n in kept if n.op_type in ("Conv", "Gemm")][-1]
    return last.output[0], last.input[1:3]


def session(file, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def even_out(model, result, factors, feed):
    """Scales the last layer so that its outputs have a deviation of 1: a softmax of larger ones is 0 or 1 and compares
    nothing."""
    import onnx
    from onnx import numpy_helper

    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(result))
    values = session(model.SerializeToString(), 2).run([result], feed)[0]
    model.graph.output.pop()
    for t in model.graph.initializer:
        if t.name in factors:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t) / np.float32(values.std()), t.name))


def picture(shape, rng):
    """Lines of dark strokes on light paper, as networks for text see them: values from -1 to 1."""
    n, c, h, w = shape
    ink = np.ones((h, w), np.float32)
    for y in range(12, h - 24, 40):
        x = 10
        while x < w - 30:
            for _ in range(3):
                x0, y0 = x + int(rng.integers(12)), y + int(rng.integers(16))
                if rng.random() < 0.5:
                    ink[y0:y0 + 10, x0:x0 + 3] = -0.8
                else:
                    ink[y0:y0 + 3, x0:x0 + 10] = -0.8
            x += int(rng.choice([18, 18, 18, 34]))
    return np.broadcast_to(ink, shape) + rng.standard_normal(shape).astype(np.float32) * np.float32(0.02)


def make_ncnn(param, binary, case, shapes):
    for file, name in ((param, "model.param"), (binary, "model.bin")):
        shutil.copyfile(file, os.path.join(case, name))
    # Values of pixels from 0 to 1.
    feed = {n: np.random.default_rng(i).random(s, dtype=np.float32) for i, (n, s) in enumerate(shapes.items())}
    with open(param) as f:
        layers = [line.split() for line in f.readlines()[2:]]
    outputs, read = [], set()
    for words in layers:
        first = 4 + int(words[2])
        read.update(words[4:first])
        outputs += words[first:first + int(words[3])]
    outputs = [o for o in outputs if o not in read]
    path = os.path.join(case, "model.param")
    for i, x in enumerate(feed.values()):
        np.save(os.path.join(case, f"input_{i}.npy"), x)
    for i, y in enumerate(ncnn_call(path, 2, feed, outputs)()):
        np.save(os.path.join(case, f"expected_{i}.npy"), y)
    with open(os.path.join(case, "case.json"), "w", encoding="utf-8") as f:
        json.dump({"inputs": list(feed), "outputs": outputs, "model": "model.param"}, f)


def make(name, file, case, shapes):
    if os.path.exists(os.path.join(case, "case.json")):
        return
    os.makedirs(case, exist_ok=True)
    if os.pathsep in file:
        make_ncnn(*file.split(os.pathsep), case, shapes)
        return
    import onnx

    model = onnx.load(file)
    light = os.path.basename(file).endswith(f"light_{name}.onnx")
    scale = fill(model) if light else None
    known = {t.name for t in model.graph.initializer}
    feed = {}
    for i, value in enumerate(v for v in model.graph.input if v.name not in known):
        kind = value.type.tensor_type
        shape = shapes.get(value.name) or [d.dim_value for d in kind.shape.dim]
        rng = np.random.default_rng(i)
        if kind.elem_type == onnx.TensorProto.INT32:
            x = rng.integers(0, 257, shape).astype(np.int32)
        elif name.startswith("ocr"):
            x = picture(shape, rng)
        else:
            x = rng.standard_normal(shape, dtype=np.float32)
        feed[value.name] = np.ascontiguousarray(x)
    if scale:
        even_out(model, *scale, feed)
    path = os.path.join(case, "model.onnx")
    onnx.save(model, path)
    outputs = [o.name for o in model.graph.output]
    for i, x in enumerate(feed.values()):
        np.save(os.path.join(case, f"input_{i}.npy"), x)
    for i, y in enumerate(session(path, 2).run(outputs, feed)):
        np.save(os.path.join(case, f"expected_{i}.npy"), y)
    # Last, so that what is half made is made again.
    with open(os.path.join(case, "case.json"), "w", encoding="utf-8") as f:
        json.dump({"inputs": list(feed), "outputs": outputs}, f)


def compare(case, libraries):
    found = {}
    for library in libraries:
        worst, noise, i = 0.0, np.inf, 0
        while os.path.exists(os.path.join(case, f"expected_{i}.npy")):
            want = np.load(os.path.join(case, f"expected_{i}.npy")).astype(np.float64)
            got = np.load(os.path.join(case, f"{library}_{i}.npy")).astype(np.float64)
            far = np.inf if got.shape != want.shape else np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)
            # Of pictures from 0 to 1.
            error = np.mean((got - want) ** 2) if got.shape == want.shape else np.inf
            noise = min(noise, float(-10 * np.log10(max(error, 1e-30))))
            worst, i = max(worst, float(far)), i + 1
        found[library] = {"relative_l2": worst, "psnr_db": noise}
    print(json.dumps(found))


def onnxruntime_call(file, threads, feed, outputs):
    run = session(file, threads)
    return lambda: run.run(outputs, feed)


def openvino_call(file, threads, feed, outputs):
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    model.reshape({name: list(x.shape) for name, x in feed.items()})
    how = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", how).create_infer_request()
    for name, x in feed.items():
        request.set_tensor(name, openvino.Tensor(x))

    def call():
        request.infer()
        return [request.get_tensor(name).data for name in outputs]

    return call


def ncnn_call(file, threads, feed, outputs):
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if net.load_param(file) or net.load_model(file.removesuffix(".param") + ".bin"):
        raise RuntimeError("the model cannot be loaded")

    def call():
        run = net.create_extractor()
        for name, x in feed.items():
            run.input(name, ncnn.Mat(x))
        return [np.array(run.extract(name)[1]) for name in outputs]

    return call


def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


def serve(library, threads, case):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        with open(os.path.join(case, "case.json"), encoding="utf-8") as f:
            what = json.load(f)
        feed = {name: np.load(os.path.join(case, f"input_{i}.npy")) for i, name in enumerate(what["inputs"])}
        make_call = {"onnxruntime": onnxruntime_call, "openvino": openvino_call, "ncnn": ncnn_call}[library]
        start = time.perf_counter()
        call = make_call(os.path.join(case, what.get("model", "model.onnx")), threads, feed, what["outputs"])
        ready = time.perf_counter()
        results = call()
        first = time.perf_counter()
        for i, y in enumerate(results):
            np.save(os.path.join(case, f"{library}_{i}.npy"), y)
        for _ in range(3):
            call()
        answer({"compile_ms": (ready - start) * 1e3, "first_ms": (first - ready) * 1e3, "peak_bytes": peak()})
    except Exception as e:  # a peer's failure is a result like any other
        answer({"error": f"{type(e).__name__}: {e}"[:300]})
        return
    for line in sys.stdin:
        try:
            answer(timed(call, json.loads(line)["time"], threads))
        except Exception as e:
            answer({"error": f"{type(e).__name__}: {e}"[:300]})


def main():
    if sys.argv[1] == "make":
        make(*sys.argv[2:5], json.loads(sys.argv[5]))
    elif sys.argv[1] == "compare":
        compare(sys.argv[2], sys.argv[3:])
    else:
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])


if __name__ == "__main__":
    main()
