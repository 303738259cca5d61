"""SSM documents: what this cloud can run, the values of their parameters, the script of a step."""

from __future__ import annotations

import json
import re

from moto.ssm.exceptions import SSMException
from moto.ssm.models import Document

PLACEHOLDER = r"\{\{\s*(\w+)\s*\}\}"


def command_parameters(document: Document, given: dict) -> dict:
    """The parameters' values, or InvalidParameters.

    Whether AWS anchors allowedPattern is not known; here it is searched for, so a pattern without ^...$ lets bad input
    through and is noticed.
    """
    spec, values = document.content_json.get("parameters") or {}, {}
    for name in [*spec, *(set(given) - set(spec))]:
        rule = spec.get(name)
        value = given.get(name, rule and rule.get("default"))
        if rule is None or value is None:
            raise SSMException(
                "InvalidParameters", f"Parameter {name} is {'not defined' if rule is None else 'required'}"
            )
        items = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        for item in items:
            if item not in rule.get("allowedValues", [item]) or not re.search(rule.get("allowedPattern", ""), item):
                raise SSMException(
                    "InvalidParameters", f"Parameter {name} has a value that the document does not allow"
                )
        values[name] = items if rule["type"] == "StringList" else items[0]
    return values


def render(document: Document, lines: list, values: dict) -> str:
    """The script of a step: parameters in place of their placeholders, as text."""

    def text(match: re.Match) -> str:
        if document.content_json["parameters"][match[1]].get("interpolationType") == "ENV_VAR":
            return f"$SSM_{match[1]}"
        return values[match[1]] if isinstance(values[match[1]], str) else json.dumps(values[match[1]])

    out: list[str] = []
    for line in lines:
        whole = re.fullmatch(PLACEHOLDER, line)
        out += values[whole[1]] if whole and isinstance(values[whole[1]], list) else [re.sub(PLACEHOLDER, text, line)]
    return "\n".join(out)


def check_document(content: dict) -> None:
    """What this cloud does not run is refused when the document is made, not skipped when it runs."""
    if content.get("schemaVersion") != "2.2":
        raise SSMException("InvalidDocumentSchemaVersion", "the local cloud runs Command documents of schema 2.2")
    for step in content.get("mainSteps") or [{}]:
        if (
            step.get("action") != "aws:runShellScript"
            or set(step) - {"action", "name", "inputs", "precondition"}
            or set(step["inputs"]) - {"runCommand", "timeoutSeconds", "workingDirectory"}
        ):
            raise SSMException(
                "InvalidDocumentContent", f"the local cloud does not run the step {json.dumps(step)[:200]}"
            )
