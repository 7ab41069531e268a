"""CAM++ (Wang et al. 2023, arXiv 2303.00332) as an ONNX model, from its weights for PyTorch."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = dict[str, NDArray[Any]]

_TYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}
# The dense blocks: their layers, and the dilation of each.
_BLOCKS = ((12, 1), (24, 2), (16, 2))
_METADATA = {
    "framework": "3d-speaker",
    "language": "Chinese-English",
    "sample_rate": "16000",
    "output_dim": "192",
    "normalize_samples": "0",
    "feature_normalize_type": "global-mean",
}


def convert(weights: Path, target: Path) -> None:
    """Writes the model that takes features x[N, T, 80] and returns embedding[N, 192]."""
    graph = _Graph(_read(weights))
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 80])]
    results = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 192])]
    nodes = graph.network()
    constants = list(graph.constants.values())
    made = helper.make_graph(nodes, "campplus", values, results, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, _METADATA)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def _read(path: Path) -> Weights:
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        with archive.open(f"{root}/data.pkl") as file:
            found: Weights = _Unpickler(file, archive, root).load()
    return found


class _Unpickler(pickle.Unpickler):
    """Reads a state dict of PyTorch, and makes nothing but arrays of it."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _array
        if module == "torch" and name in _TYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        _, kind, key, *_ = pid
        return np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), _TYPES[kind])


def _array(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


class _Graph:
    """Collects nodes and constants. Methods take and return names of tensors."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def network(self) -> list[Any]:
        """Returns the nodes from `x` to `embedding`."""
        x = self._op("Unsqueeze", self._op("Transpose", "x", perm=[0, 2, 1]), self._number(1))
        x = self._normal_relu(self._conv(x, "head.conv1", pads=[1, 1, 1, 1]), "head.bn1")
        for layer in (1, 2):
            for index in (0, 1):
                x = self._residual(x, f"head.layer{layer}.{index}", 2 if index == 0 else 1)
        x = self._conv(x, "head.conv2", strides=[2, 1], pads=[1, 1, 1, 1])
        x = self._normal_relu(x, "head.bn2")
        x = self._op("Reshape", x, self._constant("merge", np.array([0, 320, -1])))
        x = self._conv(x, "xvector.tdnn.linear", strides=[2], pads=[2, 2])
        x = self._normal_relu(x, "xvector.tdnn.nonlinear.batchnorm")
        for number, (layers, dilation) in enumerate(_BLOCKS, 1):
            for index in range(1, layers + 1):
                x = self._dense(x, f"xvector.block{number}.tdnnd{index}", dilation)
            x = self._normal_relu(x, f"xvector.transit{number}.nonlinear.batchnorm")
            x = self._conv(x, f"xvector.transit{number}.linear")
        x = self._statistics(self._normal_relu(x, "xvector.out_nonlinear.batchnorm"))
        x = self._normal(self._conv(x, "xvector.dense.linear"), "xvector.dense.nonlinear.batchnorm")
        self._nodes.append(helper.make_node("Squeeze", [x, self._number(-1)], ["embedding"]))
        return self._nodes

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _number(self, value: int) -> str:
        return self._constant(f"number{value}", np.array([value]))

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _conv(self, x: str, name: str, **attributes: Any) -> str:
        names = [f"{name}.weight", f"{name}.bias"]
        own = [self._constant(key, self._weights[key]) for key in names if key in self._weights]
        return self._op("Conv", x, *own, **attributes)

    def _normal(self, x: str, name: str) -> str:
        mean = self._weights[f"{name}.running_mean"]
        values = {
            "scale": self._weights.get(f"{name}.weight", np.ones_like(mean)),
            "shift": self._weights.get(f"{name}.bias", np.zeros_like(mean)),
            "mean": mean,
            "variance": self._weights[f"{name}.running_var"],
        }
        own = [self._constant(f"{name}.{key}", value) for key, value in values.items()]
        return self._op("BatchNormalization", x, *own, epsilon=1e-5)

    def _normal_relu(self, x: str, name: str) -> str:
        return self._op("Relu", self._normal(x, name))

    def _residual(self, x: str, name: str, stride: int) -> str:
        y = self._conv(x, f"{name}.conv1", strides=[stride, 1], pads=[1, 1, 1, 1])
        y = self._normal_relu(y, f"{name}.bn1")
        y = self._normal(self._conv(y, f"{name}.conv2", pads=[1, 1, 1, 1]), f"{name}.bn2")
        if f"{name}.shortcut.0.weight" in self._weights:
            x = self._conv(x, f"{name}.shortcut.0", strides=[stride, 1])
            x = self._normal(x, f"{name}.shortcut.1")
        return self._op("Relu", self._op("Add", y, x))

    def _dense(self, x: str, name: str, dilation: int) -> str:
        y = self._conv(self._normal_relu(x, f"{name}.nonlinear1.batchnorm"), f"{name}.linear1")
        y = self._normal_relu(y, f"{name}.nonlinear2.batchnorm")
        return self._op("Concat", x, self._masked(y, f"{name}.cam_layer", dilation), axis=1)

    def _masked(self, x: str, name: str, dilation: int) -> str:
        """A convolution, masked by the context of each frame: the mean of all, and of its 100."""
        y = self._conv(x, f"{name}.linear_local", pads=[dilation, dilation], dilations=[dilation])
        mean = self._op("ReduceMean", x, self._number(-1), keepdims=1)
        context = self._op("Add", mean, self._means_of_100(x))
        context = self._op("Relu", self._conv(context, f"{name}.linear1"))
        return self._op("Mul", y, self._op("Sigmoid", self._conv(context, f"{name}.linear2")))

    def _means_of_100(self, x: str) -> str:
        size = {"kernel_shape": [100], "strides": [100], "ceil_mode": 1, "count_include_pad": 0}
        means = self._op("Unsqueeze", self._op("AveragePool", x, **size), self._number(3))
        tiled = self._op("Tile", means, self._constant("tile", np.array([1, 1, 1, 100])))
        flat = self._op("Reshape", tiled, self._constant("flat", np.array([0, 0, -1])))
        zero, two = self._number(0), self._number(2)
        return self._op("Slice", flat, zero, self._frames(x), two)

    def _frames(self, x: str) -> str:
        return self._op("Slice", self._op("Shape", x), self._number(2), self._number(3))

    def _statistics(self, x: str) -> str:
        """The mean and the standard deviation over all frames."""
        last = self._number(-1)
        mean = self._op("ReduceMean", x, last, keepdims=1)
        apart = self._op("Sub", x, mean)
        squares = self._op("ReduceSum", self._op("Mul", apart, apart), last, keepdims=1)
        frames = self._op("Cast", self._frames(x), to=TensorProto.FLOAT)
        one = self._constant("one", np.array([1], np.float32))
        variance = self._op("Div", squares, self._op("Sub", frames, one))
        return self._op("Concat", mean, self._op("Sqrt", variance), axis=1)
