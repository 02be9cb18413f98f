"""An ONNX graph as it grows, node by node; networks that torch has exported are grafted into it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.errors import ConvNeXtError
from convnext.extras import needs

_IR_VERSION = 10  # of the file; what every runtime of these years reads


def floats(*values: float) -> NDArray[np.float32]:
    """A float32 constant (n,)."""
    return np.array(values, np.float32)


def wholes(*values: int) -> NDArray[np.int64]:
    """An int64 constant (n,)."""
    return np.array(values, np.int64)


def halve(model: Any) -> None:
    """Keep matrices and kernels of an onnx.ModelProto in 16 bits; they are widened on their way into the computation."""
    onnx = needs("onnx", "--half")
    widened = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
        widened.append(
            onnx.helper.make_node("Cast", [tensor.name], [name], name=tensor.name, to=onnx.TensorProto.FLOAT)
        )
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


class Nodes:
    """Operators, one after the other. A value is a name, or an array, which becomes a constant."""

    def __init__(self) -> None:
        self.onnx = needs("onnx", "A graph of ONNX")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.opsets: set[int] = set()  # of the networks that were grafted

    def __call__(self, kind: str, *inputs: str | NDArray[Any] | None, **attributes: Any) -> str:
        """The output of one operator; an input that is None is left out."""
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, count: int, *inputs: str | NDArray[Any] | None, **attributes: Any) -> list[str]:
        """The first `count` outputs of one operator."""
        names = ["" if each is None else self._named(each) for each in inputs]
        place = len(self.nodes)
        outputs = [f"{kind}_{place}_{number}" for number in range(count)]
        self.nodes.append(self.onnx.helper.make_node(kind, names, outputs, name=f"{kind}_{place}", **attributes))
        return outputs

    def graft(self, model: Any, inputs: Sequence[str], prefix: str) -> list[str]:
        """The outputs of a whole onnx.ModelProto for these values; its own names get `prefix`. It is used up by that."""
        graph = self.onnx.compose.add_prefix(model, prefix, inplace=True).graph
        given = {value.name: name for value, name in zip(graph.input, inputs, strict=True)}
        for node in graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = given.get(name, name)
        self.nodes += graph.node
        self.constants += graph.initializer
        self.opsets |= {each.version for each in model.opset_import if not each.domain}
        return [value.name for value in graph.output]

    def model(self, inputs: Sequence[Any], outputs: Sequence[tuple[str, Any]]) -> Any:
        """An onnx.ModelProto; `outputs`: values, and what they are called and look like outside.

        Raises ConvNeXtError where the networks that were grafted speak different versions of ONNX.
        """
        if len(self.opsets) > 1:
            raise ConvNeXtError(
                f"torch wrote parts of the network for ONNX {sorted(self.opsets)}. Update torch and onnxscript."
            )
        helper = self.onnx.helper
        ends = [helper.make_node("Identity", [name], [value.name], name=value.name) for name, value in outputs]
        given = [value for _, value in outputs]
        graph = helper.make_graph([*self.nodes, *ends], "detector", list(inputs), given, initializer=self.constants)
        opsets = [helper.make_opsetid("", version) for version in self.opsets]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _named(self, value: str | NDArray[Any]) -> str:
        if isinstance(value, str):
            return value
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name
