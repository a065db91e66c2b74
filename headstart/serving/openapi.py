"""The description of the server's addresses in OpenAPI 3.1, served at /openapi.json."""

from collections.abc import Sequence
from typing import Any

from headstart.models.bundle import versions
from headstart.serving.bodies import MOST_EXAMPLES

Json = dict[str, Any]


def described(models: Sequence[str], *, with_token: bool) -> Json:
    """Return the description. models: their names. with_token: whether it is asked for."""
    names = {"type": "string", "enum": [*models]}
    security: Json = {"security": [{"token": []}]} if with_token else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headstart",
            "version": versions().get("headstart", ""),
            "description": "Predictions of trained models. A reply that is no prediction is "
            '{"error": "…"}; status 503 has a Retry-After header.',
        },
        "paths": {**_predict_paths(), **_protocol_paths(), **_other_paths()},
        "components": {
            "schemas": {**SCHEMAS, "Model": names},
            "responses": {"Error": _json("not answered", _ref("Error"))},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        **security,
    }


def _predict_paths() -> Json:
    bodies = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {"type": "array", "items": BINARY, "maxItems": MOST_EXAMPLES}
                },
            }
        },
        "application/octet-stream": {"schema": BINARY},
        "application/json": {"schema": _ref("Texts")},
    }
    post = {
        "requestBody": {"required": True, "content": bodies},
        "responses": _replies("Predictions", 400, 413, 415, 422, 503),
    }
    return {
        "/predict": {"post": {"summary": "Predict with the first model", **post}},
        "/predict/{model}": {
            "parameters": [MODEL],
            "post": {"summary": "Predict with a model by name", **post},
        },
    }


def _protocol_paths() -> Json:
    """Return the addresses of the Open Inference Protocol, version 2."""
    infer = {
        "summary": "Infer",
        "requestBody": {"required": True, "content": _content(_ref("InferenceRequest"))},
        "responses": _replies("InferenceResponse", 400, 413, 415, 422, 503),
    }
    one = "/v2/models/{model}"
    return {
        "/v2": {"get": _get("What this server is, and its models", "Metadata")},
        "/v2/health/live": {"get": _get("Whether the server runs", "Metadata") | OPEN},
        "/v2/health/ready": {"get": _get("Whether all models answer", "Metadata", 503) | OPEN},
        one: {"parameters": [MODEL], "get": _get("What a model takes and gives", "Metadata", 503)},
        f"{one}/ready": {
            "parameters": [MODEL],
            "get": _get("Whether a model answers", "Metadata", 503),
        },
        f"{one}/infer": {"parameters": [MODEL], "post": infer},
    }


def _other_paths() -> Json:
    metrics = {"description": "metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
    session = {
        "summary": "Exchange the token for the page's cookie",
        "requestBody": {"required": True, "content": _content(_ref("Token"))},
        "responses": {"204": {"description": "the cookie is set"}, **_errors(400, 413, 415, 422)},
    }
    return {
        "/session": {"post": session | OPEN},
        "/metrics": {
            "get": {"summary": "Metrics for Prometheus", "responses": {"200": metrics, **_errors()}}
        },
    }


def _get(summary: str, schema: str, *statuses: int) -> Json:
    return {"summary": summary, "responses": _replies(schema, *statuses)}


def _replies(schema: str, *statuses: int) -> Json:
    return {"200": _json("the answer", _ref(schema)), **_errors(*statuses)}


def _errors(*statuses: int) -> Json:
    every = sorted({401, 403, 404, 405, 408, *statuses})
    return {str(status): {"$ref": "#/components/responses/Error"} for status in every}


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": _content(schema)}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


OPEN: Json = {"security": []}  # without a token too
BINARY: Json = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "format": "binary",
}
MODEL: Json = {"name": "model", "in": "path", "required": True, "schema": _ref("Model")}
TENSOR: Json = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        "datatype": {"type": "string", "examples": ["BYTES", "UINT8"]},
        "data": {"type": "array", "items": {}},
        "parameters": {"type": "object"},
    },
}
PREDICTION: Json = {
    "type": "object",
    "description": "An answer as `headstart predict --json` gives it, or the reason why the "
    'example can\'t be read. predicted is "unknown" if the model abstains; reason says why.',
    "properties": {
        "predicted": {},
        "score": {"type": "number"},
        "scores": {"type": "object", "additionalProperties": {"type": "number"}},
        "reason": {"type": "string"},
        "distance": {"type": "number", "description": "to the training rows"},
        "sha256": {"type": "string", "description": "of the example's bytes"},
        "error": {"type": "string"},
    },
}
SCHEMAS: Json = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
    "Texts": {
        "type": "object",
        "required": ["texts"],
        "additionalProperties": False,
        "properties": {
            "texts": {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 1,
                "maxItems": MOST_EXAMPLES,
            }
        },
    },
    "Token": {
        "type": "object",
        "required": ["token"],
        "properties": {"token": {"type": "string"}},
    },
    "Metadata": {"type": "object"},
    "Predictions": {
        "type": "object",
        "required": ["model", "version", "predictions"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "predictions": {"type": "array", "items": PREDICTION},
        },
    },
    "InferenceRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": TENSOR, "minItems": 1},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}},
                },
            },
            "parameters": {"type": "object"},
        },
    },
    "InferenceResponse": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "outputs": {"type": "array", "items": TENSOR},
        },
    },
}
