"""May this service do that here? The part of IAM that a missing TopicPolicy, QueuePolicy or Lambda permission breaks."""
from __future__ import annotations

from fnmatch import fnmatchcase

# An unknown condition is never met: better a test that fails and names the policy than one that passes by luck.
STRING_TESTS = {"StringEquals": str.__eq__, "ArnEquals": fnmatchcase, "ArnLike": fnmatchcase, "StringLike": fnmatchcase}


def service_allowed(policy: dict | None, service: str, action: str, source_arn: str, account: str) -> bool:
    """Does a resource's policy let `service`, acting for `source_arn`, do `action`?"""
    context = {"aws:sourcearn": source_arn, "aws:sourceaccount": account}
    hits = [s for s in as_list((policy or {}).get("Statement")) if applies(s, service, action, context)]
    return any(s.get("Effect") == "Allow" for s in hits) and not any(s.get("Effect") == "Deny" for s in hits)


def applies(statement: dict, service: str, action: str, context: dict[str, str]) -> bool:
    principal = statement.get("Principal")
    services = [principal] if isinstance(principal, str) else as_list((principal or {}).get("Service"))
    if not any(name in ("*", service) for name in services):
        return False
    if not any(fnmatchcase(action.lower(), wanted.lower()) for wanted in as_list(statement.get("Action"))):
        return False
    return all(met(test, wanted, context) for test, wanted in statement.get("Condition", {}).items())


def met(test: str, wanted: dict, context: dict[str, str]) -> bool:
    compare = STRING_TESTS.get(test)
    return compare is not None and all(
        any(compare(context.get(key.lower(), ""), value) for value in as_list(values)) for key, values in wanted.items())


def as_list(value: object) -> list:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
