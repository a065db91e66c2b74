"""The Open Inference Protocol, version 2, over HTTP, with its extension for binary tensors.

A model takes examples as they are, in the tensor "bytes" (in JSON: texts, or files in base64), or
as its network takes them, in tensors of the graph's names. Replies are JSON.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headstart.backbones.inputs import PATH
from headstart.base.errors import DataError
from headstart.models.bundle import versions
from headstart.models.plain_answers import json_value
from headstart.serving.batching import Batcher
from headstart.serving.bodies import Memory, check_count, read_body, strict_json
from headstart.serving.models import ServedModels
from headstart.serving.predicting import NO_STORE, answered
from headstart.serving.refusals import Refusal, not_ready
from headstart.serving.scoring import ScoredExample, Scorer, rows_of_tensor

BYTES = "bytes"  # the tensor of examples as they are
HEADER = "inference-header-content-length"  # bytes of JSON before the binary tensors
IDENTIFIER = re.compile(r"[A-Za-z0-9._:-]{1,64}")
DATATYPES = {
    "uint8": "UINT8",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
}
MOST_SIDE = 1_000_000  # of a shape


@dataclass(frozen=True)
class InferenceProtocol:
    """The routes of the protocol."""

    models: ServedModels
    memory: Memory

    async def server(self, request: Request) -> Response:
        names = [place.name for place in self.models.places]
        content = {
            "name": "headstart",
            "version": versions().get("headstart", ""),
            "extensions": ["binary_tensor_data"],
        }
        return JSONResponse({**content, "models": names}, headers=NO_STORE)

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True}, headers=NO_STORE)

    async def ready(self, request: Request) -> Response:
        if not self.models.ready:
            raise not_ready()
        return JSONResponse({"ready": True}, headers=NO_STORE)

    async def model_ready(self, request: Request) -> Response:
        batcher = self.models.get(request.path_params["model"])
        return JSONResponse({"name": batcher.name, "ready": True}, headers=NO_STORE)

    async def model(self, request: Request) -> Response:
        batcher = self.models.get(request.path_params["model"])
        return JSONResponse(metadata(batcher), headers=NO_STORE)

    async def infer(self, request: Request) -> Response:
        batcher = self.models.get(request.path_params["model"])
        batcher.refuse_if_full()  # before the body is read
        with self.memory.counted() as hold:
            body = await read_body(request, hold)
            asked = InferenceRequest.read(body, request.headers.get(HEADER))
            work = (
                batcher.outcomes(asked.examples(batcher.scorer))
                if asked.has_bytes
                else batcher.outcomes_of(rows_of_tensor(asked.batch(batcher.scorer)))
            )
            outcomes = await answered(request, work)
        scored = [one for one in outcomes if isinstance(one, ScoredExample)]
        if len(scored) < len(outcomes):
            place = next(i for i, one in enumerate(outcomes) if isinstance(one, DataError))
            raise Refusal(422, f"Example {place + 1} can't be read: {outcomes[place]}")
        return JSONResponse(response_of(batcher, asked, scored), headers=NO_STORE)


def metadata(batcher: Batcher) -> dict[str, Any]:
    """Return the description of a model: its tensors, and what its answers are."""
    scorer = batcher.scorer
    model, target = scorer.model, scorer.model.target
    tensors = [{"name": BYTES, "datatype": "BYTES", "shape": [-1]}]
    tensors += [
        {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": [-1, *array.shape[1:]]}
        for name, array in scorer.tensors.items()
        if array.dtype.name in DATATYPES
    ]
    about = {
        "takes": "files" if scorer.input.column == PATH else scorer.input.column,
        "noun": scorer.input.noun,
        "suffixes": sorted(scorer.input.suffixes),
        "target": target.kind,
        "answers": list(target.topics()) if target.names_topics else [],
        "backbone": model.backbone.card.name,
        "distance_limit": json_value(float(model.limits.far)),
    }
    return {
        "name": batcher.name,
        "versions": [scorer.version],
        "platform": "headstart_bundle",
        "inputs": tensors,
        "outputs": [{"name": "predicted", "datatype": "BYTES", "shape": [-1]}],
        "parameters": about,
    }


@dataclass(frozen=True)
class TensorGiven:
    """A tensor of a request. data: a list of JSON values, or the bytes of a binary tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any

    @classmethod
    def read(cls, plain: Any, binary: memoryview) -> tuple["TensorGiven", memoryview]:
        """Return a tensor and the binary data after its own; raises Refusal."""
        if not isinstance(plain, dict):
            raise _malformed("a tensor is an object")
        name, datatype, shape = (plain.get(key) for key in ("name", "datatype", "shape"))
        if not isinstance(name, str) or not isinstance(datatype, str):
            raise _malformed("a tensor has a name and a datatype")
        size = _parameters(plain).get("binary_data_size")
        if size is None:
            return cls(name, datatype, _shape(shape), plain.get("data")), binary
        if type(size) is not int or not 0 <= size <= len(binary) or "data" in plain:
            raise _malformed("binary_data_size is the size of what follows the JSON")
        return cls(name, datatype, _shape(shape), binary[:size]), binary[size:]

    def numbers(self, like: NDArray[Any]) -> NDArray[Any]:
        """Return the array of a tensor as the network takes it, (N, …) in the type of `like`."""
        wanted = DATATYPES.get(like.dtype.name, "")
        if self.datatype != wanted or self.shape[1:] != like.shape[1:]:
            raise _malformed(f"its tensors are {wanted} of shape (N, {str(like.shape[1:])[1:]}")
        check_count(self.shape[0])
        if isinstance(self.data, memoryview):
            if len(self.data) != math.prod(self.shape) * like.dtype.itemsize:
                raise _malformed("a tensor holds as many values as its shape says")
            return np.frombuffer(self.data, like.dtype.newbyteorder("<")).reshape(self.shape)
        return _from_list(self.data, self.shape, like.dtype)

    def sources(self, *, texts: bool) -> list[bytes]:
        """Return the elements of a BYTES tensor of shape (N,) or (N, 1)."""
        if self.datatype != "BYTES" or self.shape[1:] not in ((), (1,)):
            raise _malformed(f'"{BYTES}" has datatype BYTES and shape [N]')
        check_count(self.shape[0])
        found = self._elements(texts=texts)
        if len(found) != self.shape[0]:
            raise _malformed("a tensor holds as many values as its shape says")
        return found

    def _elements(self, *, texts: bool) -> list[bytes]:
        if isinstance(self.data, memoryview):
            return _prefixed(self.data)
        words = _flat(self.data, self.shape)
        if not all(isinstance(word, str) for word in words):
            raise _malformed("the elements of a BYTES tensor in JSON are strings")
        return [word.encode() if texts else _decoded(word) for word in words]


@dataclass(frozen=True)
class InferenceRequest:
    """A request to infer. wanted: the names of outputs, () for all."""

    id: str
    tensors: tuple[TensorGiven, ...]
    wanted: tuple[str, ...]

    @classmethod
    def read(cls, body: bytes, header: str | None) -> "InferenceRequest":
        """Return the request in a body; raises Refusal. header: bytes of its JSON, None: all."""
        size = len(body) if header is None else _count(header)
        if size > len(body):
            raise _malformed("the JSON is shorter than its header says")
        plain, binary = strict_json(body[:size]), memoryview(body)[size:]
        if not isinstance(plain, dict) or not isinstance(plain.get("inputs"), list):
            raise _malformed('a request is {"inputs": [{"name", "shape", "datatype", "data"}, …]}')
        check_count(len(plain["inputs"]))
        tensors = []
        for one in plain["inputs"]:
            tensor, binary = TensorGiven.read(one, binary)
            tensors.append(tensor)
        if len(binary):
            raise _malformed("more follows the JSON than its tensors need")
        return cls(_identifier(plain.get("id", "")), tuple(tensors), _wanted(plain))

    @property
    def has_bytes(self) -> bool:
        return [tensor.name for tensor in self.tensors] == [BYTES]

    def examples(self, scorer: Scorer) -> list[bytes]:
        return self.tensors[0].sources(texts=scorer.input.column != PATH)

    def batch(self, scorer: Scorer) -> Mapping[str, NDArray[Any]]:
        """Return the arrays as the network takes them; raises Refusal."""
        own = scorer.tensors
        if sorted(tensor.name for tensor in self.tensors) != sorted(own) or not own:
            names = " or ".join([f'"{BYTES}"', *(f'"{name}"' for name in own)])
            raise _malformed(f"this model takes {names}")
        found = {tensor.name: tensor.numbers(own[tensor.name]) for tensor in self.tensors}
        if len({len(array) for array in found.values()}) > 1:
            raise _malformed("its tensors are of the same number of examples")
        return found


def response_of(
    batcher: Batcher, asked: InferenceRequest, scored: Sequence[ScoredExample]
) -> dict[str, Any]:
    """Return the reply; raises Refusal for an output that the model does not have."""
    tensors = outputs_of(batcher.scorer, scored)
    if any(name not in tensors for name in asked.wanted):
        raise _malformed(f"the outputs are {', '.join(tensors)}")
    names = asked.wanted or tuple(tensors)
    head = {"id": asked.id} if asked.id else {}
    about = {"model_name": batcher.name, "model_version": batcher.scorer.version}
    return {**head, **about, "outputs": [{"name": name, **tensors[name]} for name in names]}


def outputs_of(scorer: Scorer, scored: Sequence[ScoredExample]) -> dict[str, dict[str, Any]]:
    """Return the output tensors of answers by name."""
    found = {
        "predicted": _texts(_said(one) for one in scored),
        "reason": _texts(one.doubt for one in scored),
        "sha256": _texts(str(one.plain["sha256"]) for one in scored),
    }
    if scorer.model.target.listing:
        listed = (json.dumps(one.plain["found"], ensure_ascii=False) for one in scored)
        return {**found, "found": _texts(listed)}
    for name in scored[0].outputs:
        array = np.stack([np.asarray(one.outputs[name]) for one in scored])
        if array.dtype.name in DATATYPES and name not in found:
            found[name] = {
                "datatype": DATATYPES[array.dtype.name],
                "shape": list(array.shape),
                "data": [json_value(value) for value in array.reshape(-1)],
            }
    return found


def _said(one: ScoredExample) -> str:
    return "unknown" if one.doubt else str(next(iter(one.plain.values())))


def _texts(words: Any) -> dict[str, Any]:
    data = list(words)
    return {"datatype": "BYTES", "shape": [len(data)], "data": data}


def _malformed(what: str) -> Refusal:
    return Refusal(422, f"This is no request of the Open Inference Protocol: {what}.")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _malformed("Inference-Header-Content-Length is a number of bytes")
    return int(text)


def _parameters(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    found = plain.get("parameters", {})
    if not isinstance(found, dict):
        raise _malformed("parameters are an object")
    return found


def _identifier(given: Any) -> str:
    if not isinstance(given, str) or (given and not IDENTIFIER.fullmatch(given)):
        raise _malformed("an id is up to 64 letters, digits, dots, dashes and colons")
    return given


def _wanted(plain: Mapping[str, Any]) -> tuple[str, ...]:
    outputs = plain.get("outputs", [])
    if not isinstance(outputs, list) or len(outputs) > 64:
        raise _malformed("outputs are a list of objects")
    names = tuple(one.get("name") if isinstance(one, dict) else None for one in outputs)
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise _malformed("outputs are objects, each with a name of its own")
    return tuple(str(name) for name in names)


def _shape(given: Any) -> tuple[int, ...]:
    fits = isinstance(given, list) and 1 <= len(given) <= 8
    if not fits or not all(type(side) is int and 0 <= side <= MOST_SIDE for side in given):
        raise _malformed("a shape is a list of up to 8 whole numbers")
    return tuple(given)


def _flat(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the values of a tensor in JSON, which may be nested as its shape is."""
    if not isinstance(data, list):
        raise _malformed("data is a list")
    for _ in shape[1:]:
        if not all(isinstance(part, list) for part in data):
            break
        data = [value for part in data for value in part]
    return data


def _from_list(data: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    values = _flat(data, shape)
    if len(values) != math.prod(shape):
        raise _malformed("a tensor holds as many values as its shape says")
    if not all(type(value) is int for value in values):
        raise _malformed("the values of this tensor are whole numbers")
    limits = np.iinfo(dtype)
    if values and not limits.min <= min(values) <= max(values) <= limits.max:
        raise _malformed("a value does not fit the datatype")
    return np.array(values, dtype).reshape(shape)


def _prefixed(data: memoryview) -> list[bytes]:
    """Return the elements of a binary BYTES tensor: four bytes of length, then the element."""
    found, place = list[bytes](), 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "little")
        place += 4
        if place + size > len(data):
            raise _malformed("an element of a BYTES tensor is cut off")
        found.append(bytes(data[place : place + size]))
        place += size
        check_count(len(found))
    return found


def _decoded(word: str) -> bytes:
    try:
        return base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("files in JSON are strings of base64") from None
