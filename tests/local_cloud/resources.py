"""How the resources of a function stack are made: functions and what wakes them, queues, topics, roles, parameters,
alarms.
"""

from __future__ import annotations

import io
import json
import zipfile

from .account import ACCOUNT, REGION
from .deploy import Made, Maker, creates
from .functions import find
from .template import TemplateError

AT_REST = "nothing is encrypted at rest here"


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


def tags(given: object) -> dict[str, str]:
    return {t["Key"]: str(t["Value"]) for t in given} if isinstance(given, list) else dict(given or {})


def policy_text(document: dict) -> str:
    """AWS takes a policy without a version, and SAM makes such; moto does not."""
    return json.dumps({"Version": "2012-10-17", **document})


# ---- functions -------------------------------------------------------------------------------------------------------


@creates(
    "AWS::Lambda::Function",
    "FunctionName Description Handler Runtime Role MemorySize Timeout Environment Tags DeadLetterConfig "
    "ReservedConcurrentExecutions LoggingConfig",
    Code="the program is given to LocalCloud.deploy",
    Architectures="programs are built for this machine",
    EphemeralStorage="functions share this machine's /tmp",
    TracingConfig="there are no traces",
)
def function(make: Maker, p: dict) -> Made:
    program = make.binaries[make.logical_id].resolve()
    if not program.is_file():
        raise TemplateError(f"{program} does not exist; build it first")
    if p["Runtime"] != "provided.al2023":
        raise TemplateError(f"the local cloud runs provided.al2023, not {p['Runtime']}")
    name, logging = make.name(p.get("FunctionName")), p.get("LoggingConfig", {})
    if extra := set(logging) - {"LogGroup", "LogFormat", "ApplicationLogLevel", "SystemLogLevel"}:
        raise TemplateError(f"LoggingConfig: the local cloud does not honour {extra}")
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("bootstrap", str(program))
    client = make.client("lambda")
    client.create_function(
        FunctionName=name,
        Description=p.get("Description", ""),
        Handler=p.get("Handler", "bootstrap"),
        Runtime=p["Runtime"],
        Role=p["Role"],
        MemorySize=int(p.get("MemorySize", 128)),
        Timeout=int(p.get("Timeout", 3)),
        Code={"ZipFile": code.getvalue()},
        Environment={"Variables": {k: str(v) for k, v in p.get("Environment", {}).get("Variables", {}).items()}},
        Tags=tags(p.get("Tags")),
        **({"DeadLetterConfig": p["DeadLetterConfig"]} if "DeadLetterConfig" in p else {}),
    )
    if "ReservedConcurrentExecutions" in p:
        client.put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=int(p["ReservedConcurrentExecutions"])
        )
    if "LogGroup" in logging:
        find(name).logs_group_name = logging["LogGroup"]
    make.cloud.functions.programs[name] = program
    return Made(name, {"Arn": arn("lambda", f"function:{name}")})


@creates("AWS::Lambda::Permission", "FunctionName Action Principal SourceArn SourceAccount")
def permission(make: Maker, p: dict) -> Made:
    make.client("lambda").add_permission(StatementId=make.logical_id, **p)
    return Made(make.name())


@creates(
    "AWS::Lambda::EventInvokeConfig",
    "FunctionName MaximumEventAgeInSeconds MaximumRetryAttempts DestinationConfig",
    Qualifier="there is only $LATEST",
)
def event_invoke_config(make: Maker, p: dict) -> Made:
    if set(p.get("DestinationConfig", {})) - {"OnFailure"}:
        raise TemplateError("the local cloud knows only the destination OnFailure")
    numbers = {k: int(p[k]) for k in ("MaximumEventAgeInSeconds", "MaximumRetryAttempts") if k in p}
    make.client("lambda").put_function_event_invoke_config(
        FunctionName=p["FunctionName"],
        **numbers,
        **({"DestinationConfig": p["DestinationConfig"]} if "DestinationConfig" in p else {}),
    )
    return Made(make.name())


@creates("AWS::Lambda::EventSourceMapping", "EventSourceArn FunctionName BatchSize Enabled FunctionResponseTypes")
def event_source_mapping(make: Maker, p: dict) -> Made:
    made = make.client("lambda").create_event_source_mapping(**{**p, "BatchSize": int(p.get("BatchSize", 10))})
    return Made(made["UUID"], {"Id": made["UUID"]})


# ---- events and schedules --------------------------------------------------------------------------------------------


@creates("AWS::Events::Rule", "Name Description EventPattern ScheduleExpression State Targets")
def rule(make: Maker, p: dict) -> Made:
    name, client = make.name(p.get("Name")), make.client("events")
    what = {k: p[k] for k in ("Description", "ScheduleExpression", "State") if k in p}
    if "EventPattern" in p:
        what["EventPattern"] = json.dumps(p["EventPattern"])
    made = client.put_rule(Name=name, **what)["RuleArn"]
    for target in p.get("Targets", []):
        if odd := set(target) - {
            "Arn",
            "Id",
            "Input",
            "InputPath",
            "InputTransformer",
            "RetryPolicy",
            "DeadLetterConfig",
            "SqsParameters",
        }:
            raise TemplateError(f"target {target['Id']}: the local cloud does not honour {sorted(odd)}")
        client.put_targets(Rule=name, Targets=[target])
    return Made(name, {"Arn": made})


@creates(
    "AWS::Scheduler::Schedule",
    "Name Description ScheduleExpression ScheduleExpressionTimezone State Target FlexibleTimeWindow",
)
def schedule(make: Maker, p: dict) -> Made:
    name, target = make.name(p.get("Name")), p["Target"]
    if odd := set(target) - {"Arn", "RoleArn", "Input", "RetryPolicy", "DeadLetterConfig"}:
        raise TemplateError(f"the local cloud does not honour the target's {sorted(odd)}")
    if p["FlexibleTimeWindow"]["Mode"] != "OFF":
        raise TemplateError("the local cloud has no flexible time windows")
    make.client("scheduler").create_schedule(**{**p, "Name": name})
    return Made(name, {"Arn": arn("scheduler", f"schedule/default/{name}")})


# ---- queues and topics -----------------------------------------------------------------------------------------------


@creates(
    "AWS::SQS::Queue",
    "QueueName VisibilityTimeout MessageRetentionPeriod ReceiveMessageWaitTimeSeconds DelaySeconds RedrivePolicy Tags",
    SqsManagedSseEnabled=AT_REST,
    KmsMasterKeyId=AT_REST,
)
def queue(make: Maker, p: dict) -> Made:
    name = make.name(p.pop("QueueName", None))
    attributes = {k: json.dumps(v) if isinstance(v, dict) else str(v) for k, v in p.items() if k != "Tags"}
    url = make.client("sqs").create_queue(QueueName=name, Attributes=attributes, tags=tags(p.get("Tags")))["QueueUrl"]
    return Made(url, {"Arn": arn("sqs", name), "QueueName": name, "QueueUrl": url})


@creates("AWS::SQS::QueuePolicy", "Queues PolicyDocument")
def queue_policy(make: Maker, p: dict) -> Made:
    for url in p["Queues"]:
        make.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(p["PolicyDocument"])})
    return Made(make.name())


@creates("AWS::SNS::Topic", "TopicName DisplayName Subscription Tags", KmsMasterKeyId=AT_REST)
def topic(make: Maker, p: dict) -> Made:
    name, client = make.name(p.get("TopicName")), make.client("sns")
    made = client.create_topic(Name=name, Attributes={"DisplayName": p.get("DisplayName", "")})["TopicArn"]
    for each in p.get("Subscription", []):
        client.subscribe(TopicArn=made, Protocol=each["Protocol"], Endpoint=each["Endpoint"])
    return Made(made, {"TopicArn": made, "TopicName": name})


@creates("AWS::SNS::TopicPolicy", "Topics PolicyDocument")
def topic_policy(make: Maker, p: dict) -> Made:
    for each in p["Topics"]:
        make.client("sns").set_topic_attributes(
            TopicArn=each, AttributeName="Policy", AttributeValue=json.dumps(p["PolicyDocument"])
        )
    return Made(make.name())


@creates("AWS::SNS::Subscription", "TopicArn Protocol Endpoint FilterPolicy RawMessageDelivery")
def subscription(make: Maker, p: dict) -> Made:
    attributes = {k: json.dumps(p[k]) for k in ("FilterPolicy", "RawMessageDelivery") if k in p}
    made = make.client("sns").subscribe(
        TopicArn=p["TopicArn"], Protocol=p["Protocol"], Endpoint=p["Endpoint"], Attributes=attributes
    )
    return Made(made["SubscriptionArn"])


# ---- roles, logs, parameters, secrets, alarms ------------------------------------------------------------------------


@creates(
    "AWS::IAM::Role",
    "RoleName Description AssumeRolePolicyDocument Policies Tags Path",
    ManagedPolicyArns="AWS's own policies are not here",
    MaxSessionDuration="sessions do not end",
    PermissionsBoundary="not evaluated",
)
def role(make: Maker, p: dict) -> Made:
    name, client = make.name(p.get("RoleName")), make.client("iam")
    made = client.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=json.dumps(p["AssumeRolePolicyDocument"]),
        Path=p.get("Path", "/"),
        Description=p.get("Description", ""),
    )["Role"]
    for policy in p.get("Policies", []):
        client.put_role_policy(
            RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=policy_text(policy["PolicyDocument"])
        )
    return Made(name, {"Arn": made["Arn"], "RoleId": made["RoleId"]})


@creates("AWS::IAM::Policy", "PolicyName PolicyDocument Roles")
def role_policy(make: Maker, p: dict) -> Made:
    for each in p.get("Roles", []):
        make.client("iam").put_role_policy(
            RoleName=each, PolicyName=p["PolicyName"], PolicyDocument=policy_text(p["PolicyDocument"])
        )
    return Made(p["PolicyName"])


@creates("AWS::Logs::LogGroup", "LogGroupName RetentionInDays", KmsKeyId=AT_REST, Tags="nobody reads them")
def log_group(make: Maker, p: dict) -> Made:
    name, client = make.name(p.get("LogGroupName")), make.client("logs")
    client.create_log_group(logGroupName=name)
    if "RetentionInDays" in p:
        client.put_retention_policy(logGroupName=name, retentionInDays=int(p["RetentionInDays"]))
    return Made(name, {"Arn": arn("logs", f"log-group:{name}:*")})


@creates(
    "AWS::SSM::Parameter",
    "Name Type Value Description AllowedPattern",
    Tags="nobody reads them",
    Tier="there is one tier",
)
def parameter(make: Maker, p: dict) -> Made:
    name = make.name(p.pop("Name", None))
    make.client("ssm").put_parameter(Name=name, **p)
    return Made(name, {"Type": p["Type"], "Value": p["Value"]})


@creates(
    "AWS::SSM::Document", "Name DocumentType DocumentFormat Content TargetType Tags", UpdateMethod="nothing is updated"
)
def document(make: Maker, p: dict) -> Made:
    name = make.name(p.get("Name"))
    content = p["Content"] if isinstance(p["Content"], str) else json.dumps(p["Content"])
    make.client("ssm").create_document(
        Name=name,
        Content=content,
        DocumentFormat=p.get("DocumentFormat", "JSON"),
        DocumentType=p.get("DocumentType", "Command"),
    )
    return Made(name)


@creates("AWS::SecretsManager::Secret", "Name Description SecretString GenerateSecretString Tags", KmsKeyId=AT_REST)
def secret(make: Maker, p: dict) -> Made:
    name, client, value = make.name(p.get("Name")), make.client("secretsmanager"), p.get("SecretString")
    if "GenerateSecretString" in p:
        wish = p["GenerateSecretString"]
        if odd := set(wish) - {"PasswordLength", "ExcludePunctuation", "ExcludeCharacters"}:
            raise TemplateError(f"GenerateSecretString: the local cloud does not honour {sorted(odd)}")
        value = client.get_random_password(**wish)["RandomPassword"]
    made = client.create_secret(Name=name, SecretString=value, Description=p.get("Description", ""))["ARN"]
    return Made(made, {"Id": made})


@creates(
    "AWS::CloudWatch::Alarm",
    "AlarmName AlarmDescription Namespace MetricName Dimensions Statistic ExtendedStatistic Period "
    "EvaluationPeriods DatapointsToAlarm ComparisonOperator Threshold TreatMissingData AlarmActions OKActions "
    "InsufficientDataActions "
    "Unit ActionsEnabled",
    Tags="nobody reads them",
)
def alarm(make: Maker, p: dict) -> Made:
    """Stored as it is; alarms are not evaluated here (README.md)."""
    name = make.name(p.pop("AlarmName", None))
    numbers = {k: int(p[k]) for k in ("Period", "EvaluationPeriods", "DatapointsToAlarm") if k in p} | {
        "Threshold": float(p["Threshold"])
    }
    make.client("cloudwatch").put_metric_alarm(AlarmName=name, **{**p, **numbers})
    return Made(name, {"Arn": arn("cloudwatch", f"alarm:{name}")})
