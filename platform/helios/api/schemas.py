"""JSON Schemas of what the API takes and answers, beside those of the kinds."""

from typing import Any

from helios.api.tokens import TokenRequest
from helios.spec import KINDS, json_schema

Schema = dict[str, Any]

DESCRIPTION = """\
The control plane of HELIOS. Every answer that is not 2xx is an RFC 9457 problem document; `problems` lists what is
wrong field by field, with the nearest valid name. Objects of tenants that a token does not reach answer 404.
"""
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
TIME: Schema = {"type": "string", "format": "date-time"}
FREE: Schema = {"type": "object", "additionalProperties": True}


def components() -> dict[str, Schema]:
    """Every schema that routes refer to, by name."""
    found: dict[str, Schema] = {}
    for kind in KINDS:
        found |= _of_kind(kind)
    token_request = TokenRequest.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
    found |= token_request.pop("$defs", {})
    return found | _OWN | {"TokenRequest": token_request}


def _of_kind(kind: str) -> dict[str, Schema]:
    """The document as it is sent, the object as it comes back, and a page of them."""
    sent = _pointing_to_components(json_schema(kind))
    found: dict[str, Schema] = sent.pop("$defs", {})
    del sent["$schema"], sent["$id"]
    # What a caller says of what the control plane sets is ignored, so there is nothing about it to hold to.
    sent["properties"]["status"] = FREE
    for name in ("uid", "generation", "resourceVersion", "creationTimestamp"):
        found["Metadata"]["properties"][name] = {"description": "Set by the control plane; ignored in documents."}
    answer = {
        "apiVersion": {"const": "helios/v1"},
        "kind": {"const": kind},
        "metadata": {"$ref": "#/components/schemas/ObjectMetadata"},
        "spec": sent["properties"]["spec"],
        "status": FREE,
    }
    found[f"{kind}Document"] = sent
    found[kind] = _closed(answer)
    found[f"{kind}Page"] = _closed(
        {
            "revision": NUMBER,
            "items": _list_of(kind),
            "next": {"type": ["string", "null"], "description": "Ask `after` this for more; null at the end."},
        }
    )
    return found


def _pointing_to_components(schema: Any) -> Any:
    if isinstance(schema, dict):
        made = {key: _pointing_to_components(value) for key, value in schema.items()}
        if isinstance(made.get("$ref"), str):
            made["$ref"] = made["$ref"].replace("#/$defs/", "#/components/schemas/")
        return made
    return [_pointing_to_components(item) for item in schema] if isinstance(schema, list) else schema


def _closed(properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _open(properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    return _closed(properties, optional=optional) | {"additionalProperties": True}


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _map_of(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_ROLE: Schema = {"enum": ["viewer", "researcher", "platform", "admin", "agent"]}
_TOKEN: dict[str, Schema] = {
    "id": TEXT,
    "subject": TEXT,
    "role": _ROLE,
    "tenants": {"type": "array", "items": TEXT},
    "cell": TEXT,
    "state": {"enum": ["Active", "Expired", "Revoked"]},
    "createdBy": TEXT,
    "createdAt": TIME,
    "expiresAt": _or_null(TIME),
    "revokedAt": _or_null(TIME),
}
_OWN: dict[str, Schema] = {
    "ObjectMetadata": _closed(
        {
            "name": TEXT,
            "labels": _map_of(TEXT),
            "annotations": _map_of(TEXT),
            "uid": TEXT,
            "generation": NUMBER,
            "resourceVersion": NUMBER,
            "creationTimestamp": TIME,
            "deletionTimestamp": TIME,
        },
        optional=("deletionTimestamp",),
    ),
    "Problem": _closed(
        {
            "type": TEXT,
            "title": TEXT,
            "status": NUMBER,
            "code": TEXT,
            "detail": TEXT,
            "hint": TEXT,
            "problems": _list_of("FieldProblem"),
            "requestId": TEXT,
            "what": TEXT,
            "name": TEXT,
            "nearest": TEXT,
        },
        optional=("what", "name", "nearest"),
    ),
    "FieldProblem": _closed(
        {
            "message": TEXT,
            "file": TEXT,
            "line": NUMBER,
            "column": NUMBER,
            "field": TEXT,
            "value": TEXT,
            "nearest": TEXT,
        }
    ),
    "Preview": _open(
        {
            "result": {"enum": ["created", "configured", "unchanged"]},
            "object": FREE,
            "diff": {"type": "array", "items": _open({"field": TEXT, "before": {}, "after": {}})},
            "decision": _or_null(FREE),
            "cells": {"type": "array"},
        }
    ),
    "Explanation": _open({"kind": TEXT, "name": TEXT, "state": TEXT, "events": _list_of("Event")}),
    "Event": _closed(
        {
            "kind": TEXT,
            "name": TEXT,
            "uid": TEXT,
            "reason": TEXT,
            "message": TEXT,
            "type": {"enum": ["Normal", "Warning"]},
            "time": TIME,
            "revision": NUMBER,
            "number": NUMBER,
        }
    ),
    "StreamEvent": _closed(
        {
            "event": {"enum": ["changed", "gone", "event", "bookmark", "resume"]},
            "id": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "Send it as Last-Event-ID to go on from here.",
            },
            "data": {"type": "string", "contentMediaType": "application/json"},
        }
    ),
    "EventPage": _closed({"items": _list_of("Event"), "next": NUMBER}),
    "AuditEntry": _closed(
        {
            "actor": TEXT,
            "verb": TEXT,
            "kind": TEXT,
            "name": TEXT,
            "outcome": {"enum": ["allowed", "denied"]},
            "request": TEXT,
            "detail": TEXT,
            "time": TIME,
            "revision": NUMBER,
            "number": NUMBER,
        }
    ),
    "AuditPage": _closed({"items": _list_of("AuditEntry"), "next": NUMBER}),
    "Health": _closed({"status": {"const": "ok"}}),
    "Readiness": _closed({"status": {"const": "ok"}, "revision": NUMBER}),
    "Status": _closed(
        {
            "version": TEXT,
            "revision": NUMBER,
            "objects": _map_of(_map_of(NUMBER)),
            "links": _map_of(TEXT),
            "replica": TEXT,
            "leader": _or_null(_open({"holder": TEXT, "address": TEXT, "token": NUMBER})),
        }
    ),
    "Queue": _closed({"items": {"type": "array", "items": _open({"kind": TEXT, "name": TEXT, "tenant": TEXT})}}),
    "Snapshot": _closed({"format": NUMBER, "snapshot": FREE, "policy": FREE, "decisions": FREE}),
    "Usage": _closed(
        {
            "by": {"enum": ["tenant", "cell", "job"]},
            "resource": {"enum": ["gpu", "cpu"]},
            "since": TIME,
            "until": TIME,
            "items": {"type": "array", "items": FREE},
        }
    ),
    "WhoAmI": _closed(
        {
            "subject": TEXT,
            "cell": TEXT,
            "grants": {"type": "array", "items": _closed({"role": _ROLE, "tenants": {"type": "array", "items": TEXT}})},
        }
    ),
    "Token": _closed(_TOKEN),
    "IssuedToken": _closed({**_TOKEN, "token": {**TEXT, "description": "The bearer text; it is shown this once."}}),
    "TokenList": _closed({"items": _list_of("Token")}),
    "NodeSelection": _closed(
        {
            "node": {**TEXT, "description": "One node, or empty: all of the cell.", "maxLength": 253},
            "reason": {**TEXT, "description": "For people.", "maxLength": 500},
        },
        optional=("node", "reason"),
    ),
}
