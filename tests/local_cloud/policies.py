"""Deciding by IAM policies: what a policy says about one action on one resource.

Knows what this project's policies use. What it does not know never grants anything: better a test that fails and names
the policy than one that passes by luck.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Context = Mapping[str, str]  # condition key in lower case -> value


def allowed(policies: Iterable[dict], action: str, resource: str, context: Context) -> bool:
    """An Allow that applies and no Deny that applies."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in as_list(policy.get("Statement"))
        if matches_any(action.lower(), statement.get("Action"), lower=True)
        and matches_any(resource, statement.get("Resource"))
        and conditions_met(statement, context)
    }
    return effects == {"Allow"}


def service_allowed(policy: dict | None, service: str, action: str, source_arn: str, account: str) -> bool:
    """Does the policy of a resource let an AWS service, acting for `source_arn`, do that to it?"""
    mine = [
        {**statement, "Resource": "*"}
        for statement in as_list((policy or {}).get("Statement"))
        if is_for(statement, service)
    ]
    return allowed([{"Statement": mine}], action, "*", {"aws:sourcearn": source_arn, "aws:sourceaccount": account})


def is_for(statement: dict, service: str) -> bool:
    principal = statement.get("Principal")
    names = [principal] if isinstance(principal, str) else as_list((principal or {}).get("Service"))
    return any(name in ("*", service) for name in names)


def conditions_met(statement: dict, context: Context) -> bool:
    return all(
        test_met(test, key.lower(), as_list(wanted), context)
        for test, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def test_met(test: str, key: str, wanted: list, context: Context) -> bool:
    if test.endswith("IfExists"):
        return key not in context or test_met(test.removesuffix("IfExists"), key, wanted, context)
    if key not in context:
        return False
    if test in ("StringEquals", "Bool"):
        return context[key] in map(str, wanted)
    if test in ("StringLike", "ArnLike", "ArnEquals"):
        return matches_any(context[key], wanted)
    return False


def matches_any(text: str, patterns: object, *, lower: bool = False) -> bool:
    """AWS's wildcards: * and ?."""
    for pattern in as_list(patterns):
        regular = re.escape(pattern.lower() if lower else pattern).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(regular, text, re.DOTALL):
            return True
    return False


def as_list(value: object) -> list:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
