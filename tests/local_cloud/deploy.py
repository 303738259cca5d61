"""Deploying a template: each resource is made by API calls. What is not known is an error, never skipped.

moto's CloudFormation leaves out what it does not know and says CREATE_COMPLETE; that would make every test of a
template worthless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .template import NO_VALUE, Resolver, TemplateError, parameter_values, read

# Attributes of a resource beside its properties, and why they change nothing here.
IGNORED_ATTRIBUTES = {
    "Metadata": "for tools",
    "DeletionPolicy": "nothing is deleted",
    "UpdateReplacePolicy": "nothing is updated",
    "UpdatePolicy": "nothing is updated",
}


@dataclass
class Made:
    """A resource that exists: what Ref gives, and its attributes."""

    ref: str
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass
class Kind:
    create: Callable[[Maker, dict], Made]
    honours: set[str]
    ignores: dict[str, str]


KINDS: dict[str, Kind] = {}


def creates(kind: str, honours: str, **ignores: str) -> Callable:
    """Register how a type is made: the properties it acts on, and those it leaves out on purpose, with the reason."""

    def register(create: Callable) -> Callable:
        KINDS[kind] = Kind(create, set(honours.split()), ignores)
        return create

    return register


@dataclass
class Stack:
    name: str
    made: dict[str, Made] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, logical_id: str) -> str:
        """What Ref would give."""
        return self.made[logical_id].ref

    def attribute(self, logical_id: str, name: str) -> object:
        return self.made[logical_id].attributes[name]


class Maker:
    """What a `create` function may use, for one resource at a time."""

    def __init__(self, cloud, stack: Stack, binaries: dict[str, Path], user_data: str | None) -> None:
        self.cloud, self.stack, self.binaries, self.user_data, self.logical_id = cloud, stack, binaries, user_data, ""

    def client(self, service: str):
        return self.cloud.client(service)

    def name(self, given: str | None = None) -> str:
        return given or f"{self.stack.name}-{self.logical_id}"


def deploy(
    cloud, path: Path, given: dict[str, str], binaries: dict[str, Path], name: str, user_data: str | None
) -> Stack:
    from . import resources, resources_compute  # noqa: F401  (they register what can be made)

    template, stack = read(path), Stack(name)
    maker = Maker(cloud, stack, binaries, user_data)
    run = Run(template, maker, parameter_values(template, given))
    functions = {id_ for id_, r in template["Resources"].items() if r["Type"] == "AWS::Lambda::Function"}
    if functions != set(binaries):
        raise TemplateError(
            f"the template's functions are {sorted(functions)}, but there are programs for {sorted(binaries)}"
        )
    for logical_id in template["Resources"]:
        run.make(logical_id)
    for output, definition in template.get("Outputs", {}).items():
        if "Condition" not in definition or run.resolver.condition(definition["Condition"]):
            stack.outputs[output] = str(run.resolver.resolve(definition["Value"]))
    return stack


class Run:
    """Makes resources as others ask for them, each once."""

    def __init__(self, template: dict, maker: Maker, values: dict) -> None:
        self.resources, self.maker, self.made = template["Resources"], maker, maker.stack.made
        self.path: list[str] = []
        self.resolver = Resolver(
            template, values, maker.stack.name, lambda id_: self.make(id_).ref, self.attribute, self.parameter_store
        )

    def attribute(self, logical_id: str, name: str) -> object:
        attributes = self.make(logical_id).attributes
        if name not in attributes:
            raise TemplateError(f"{logical_id} has no attribute {name} in the local cloud; it has {sorted(attributes)}")
        return attributes[name]

    def parameter_store(self, name: str) -> str:
        return self.maker.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]

    def make(self, logical_id: str) -> Made:
        if logical_id in self.made:
            return self.made[logical_id]
        if logical_id not in self.resources:
            raise TemplateError(
                f"{self.path[-1] if self.path else 'the template'} refers to {logical_id}, which does not exist"
            )
        if logical_id in self.path:
            raise TemplateError(f"resources refer to each other in a circle: {' -> '.join([*self.path, logical_id])}")
        resource = self.resources[logical_id]
        if "Condition" in resource and not self.resolver.condition(resource["Condition"]):
            self.made[logical_id] = Made(NO_VALUE)
            return self.made[logical_id]
        self.path.append(logical_id)
        for other in (
            [resource.get("DependsOn", [])]
            if isinstance(resource.get("DependsOn", []), str)
            else resource.get("DependsOn", [])
        ):
            self.make(other)
        kind = self.kind_of(logical_id, resource)
        properties = self.resolver.resolve(resource.get("Properties", {}))
        self.maker.logical_id = logical_id  # after resolving, which may have made others
        try:
            self.made[logical_id] = kind.create(self.maker, {k: v for k, v in properties.items() if k in kind.honours})
        except Exception as error:
            raise TemplateError(f"{logical_id} ({resource['Type']}): {error}") from error
        self.path.pop()
        return self.made[logical_id]

    @staticmethod
    def kind_of(logical_id: str, resource: dict) -> Kind:
        kind = KINDS.get(resource["Type"])
        if kind is None:
            raise TemplateError(
                f"{logical_id}: the local cloud cannot make {resource['Type']}; add it to local_cloud/resources.py"
            )
        if unknown := sorted(set(resource.get("Properties", {})) - kind.honours - set(kind.ignores)):
            raise TemplateError(f"{logical_id} ({resource['Type']}): the local cloud does not honour {unknown}")
        if odd := sorted(set(resource) - {"Type", "Properties", "Condition", "DependsOn"} - set(IGNORED_ATTRIBUTES)):
            raise TemplateError(f"{logical_id}: the local cloud does not honour the attributes {odd}")
        return kind
