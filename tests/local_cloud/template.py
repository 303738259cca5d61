"""CloudFormation and SAM templates: read, expanded, and their intrinsic functions resolved; all of it offline."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from .account import ACCOUNT, REGION

PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::NotificationARNs": [],
}
logging.getLogger("samtranslator").setLevel(logging.ERROR)  # it complains about its own metrics
ZONES = [f"{REGION}{letter}" for letter in "abc"]
NO_VALUE = object()


class TemplateError(Exception):
    """The template asks for something that is wrong, or that the local cloud does not have."""


class NoManagedPolicies:
    """What samtranslator asks for the ARNs of AWS's managed policies; templates here name them by ARN."""

    @staticmethod
    def load() -> dict[str, str]:
        return {}


def read(path: Path) -> dict:
    """The template with the Serverless transform applied."""
    template = yaml_parse(path.read_text())
    if "AWS::Serverless" not in str(template.get("Transform", "")):
        return template
    for resource in template["Resources"].values():
        if (
            resource["Type"] == "AWS::Serverless::Function"
        ):  # `sam build` puts an archive here; we run the program itself
            resource["Properties"]["CodeUri"] = "s3://local-cloud/code.zip"
    before = os.environ.get("AWS_DEFAULT_REGION")
    os.environ["AWS_DEFAULT_REGION"] = REGION  # samtranslator reads the partition from it
    try:
        return transform(template, {}, NoManagedPolicies())
    except Exception as error:
        causes = [cause.message for cause in getattr(error, "causes", [])]
        raise TemplateError(f"{path}: " + "; ".join(causes or [str(error)])) from error
    finally:
        if before is None:
            del os.environ["AWS_DEFAULT_REGION"]
        else:
            os.environ["AWS_DEFAULT_REGION"] = before


def parameter_values(template: dict, given: dict[str, str]) -> dict[str, object]:
    """Defaults filled in, constraints checked."""
    declared = template.get("Parameters", {})
    if unknown := sorted(set(given) - set(declared)):
        raise TemplateError(f"the template has no parameters {unknown}; it has {sorted(declared)}")
    values: dict[str, object] = {}
    for name, rule in declared.items():
        if name not in given and "Default" not in rule:
            raise TemplateError(f"the parameter {name} needs a value")
        text = str(given.get(name, rule.get("Default")))
        if "AllowedPattern" in rule and not re.fullmatch(rule["AllowedPattern"], text):
            raise TemplateError(f"parameter {name}: {text!r} does not match {rule['AllowedPattern']}")
        if "AllowedValues" in rule and text not in map(str, rule["AllowedValues"]):
            raise TemplateError(f"parameter {name}: {text!r} is none of {rule['AllowedValues']}")
        if not int(rule.get("MinLength", 0)) <= len(text) <= int(rule.get("MaxLength", 1 << 20)):
            raise TemplateError(f"parameter {name}: the length of {text!r} is not allowed")
        is_list = rule["Type"] == "CommaDelimitedList" or rule["Type"].startswith("List<")
        values[name] = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    return values


class Resolver:
    """Intrinsic functions. `ref` and `attribute` ask for a resource, which may have to be made first; `parameter_store`
    reads SSM.
    """

    def __init__(
        self, template: dict, values: dict, stack: str, ref: Callable, attribute: Callable, parameter_store: Callable
    ) -> None:
        self.conditions, self.mappings = template.get("Conditions", {}), template.get("Mappings", {})
        types = {name: rule["Type"] for name, rule in template.get("Parameters", {}).items()}
        self.values = {
            name: parameter_store(value) if types[name].startswith("AWS::SSM::Parameter::Value") else value
            for name, value in values.items()
        }
        self.values |= {
            **PSEUDO,
            "AWS::NoValue": NO_VALUE,
            "AWS::StackName": stack,
            "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{stack}/local",
        }
        self._ref, self._attribute, self._parameter_store = ref, attribute, parameter_store

    def condition(self, name: str) -> bool:
        if name not in self.conditions:
            raise TemplateError(f"there is no condition {name}")
        return bool(self.resolve(self.conditions[name]))

    def resolve(self, node: object) -> object:
        if isinstance(node, list):
            return [item for item in map(self.resolve, node) if item is not NO_VALUE]
        if isinstance(node, str):
            return re.sub(r"\{\{resolve:ssm:([^}:]+)(?::\d+)?\}\}", lambda found: self._parameter_store(found[1]), node)
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name in ("Ref", "Condition") and isinstance(argument, str):
                return self._ref_to(argument) if name == "Ref" else self.condition(argument)
            if name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        return {key: value for key, value in ((k, self.resolve(v)) for k, v in node.items()) if value is not NO_VALUE}

    def _ref_to(self, name: str) -> object:
        return self.values[name] if name in self.values else self._ref(name)

    def _function(self, name: str, argument: object) -> object:
        known = {
            "GetAtt": self._get_att,
            "Sub": self._sub,
            "Join": self._join,
            "If": self._if,
            "Select": self._select,
            "Split": lambda a: str(self.resolve(a[1])).split(a[0]),
            "GetAZs": lambda _: ZONES,
            "Base64": lambda a: base64.b64encode(str(self.resolve(a)).encode()).decode(),
            "Equals": lambda a: str(self.resolve(a[0])) == str(self.resolve(a[1])),
            "And": lambda a: all(map(self.resolve, a)),
            "Or": lambda a: any(map(self.resolve, a)),
            "Not": lambda a: not self.resolve(a[0]),
            "FindInMap": lambda a: self.mappings[self.resolve(a[0])][self.resolve(a[1])][self.resolve(a[2])],
        }
        if name not in known:
            raise TemplateError(f"the local cloud does not know Fn::{name}")
        return known[name](argument)

    def _get_att(self, argument: object) -> object:
        resource, _, attribute = (
            argument.partition(".") if isinstance(argument, str) else (argument[0], "", argument[1])
        )
        return self._attribute(resource, self.resolve(attribute))

    def _sub(self, argument: object) -> str:
        text, extra = (argument, {}) if isinstance(argument, str) else argument
        extra = {name: self.resolve(value) for name, value in extra.items()}

        def value(found: re.Match) -> str:
            name = found[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in extra:
                return str(extra[name])
            return str(self._get_att(name) if "." in name else self._ref_to(name))

        return str(self.resolve(re.sub(r"\$\{([^}]+)\}", value, text)))

    def _join(self, argument: list) -> str:
        return argument[0].join(map(str, self.resolve(argument[1])))

    def _if(self, argument: list) -> object:
        name, yes, no = argument
        return self.resolve(yes if self.condition(name) else no)

    def _select(self, argument: list) -> object:
        return self.resolve(argument[1])[int(self.resolve(argument[0]))]
