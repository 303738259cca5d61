"""The local cloud's own rules: what a template makes, and whom its policies let do what."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_cloud import Timing, wait_for
from local_cloud.policies import allowed
from local_cloud.template import TemplateError
from local_cloud.template import read as read_template

HERE = Path(__file__).parent / "local_cloud"
ECHO, ECHO_STACK = HERE / "echo_function.py", HERE / "echo.yaml"
PERENNIAL = Path(__file__).parents[1] / "infra" / "template.yaml"
GROUP = PERENNIAL.with_name("group.yaml")
FUNCTIONS = ("LifecycleFunction", "BackupFunction", "VerifyFunction", "AlertFunction")

POLICY = {
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": "arn:aws:s3:::b/p/*"},
        {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": "arn:aws:s3:::b",
            "Condition": {"StringLikeIfExists": {"s3:prefix": "p/*"}},
        },
        {
            "Effect": "Allow",
            "Action": "ssm:SendCommand",
            "Resource": "*",
            "Condition": {"StringEquals": {"ssm:resourceTag/Name": "docs"}},
        },
        {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::b/p/secret"},
    ]
}


@pytest.mark.parametrize(
    ("action", "resource", "context", "expected"),
    [
        ("s3:GetObject", "arn:aws:s3:::b/p/key", {}, True),
        ("s3:PutObject", "arn:aws:s3:::b/p/key", {}, False),
        ("s3:GetObject", "arn:aws:s3:::b/other", {}, False),
        ("s3:GetObject", "arn:aws:s3:::b/p/secret", {}, False),
        ("s3:ListBucket", "arn:aws:s3:::b", {}, True),
        ("s3:ListBucket", "arn:aws:s3:::b", {"s3:prefix": "q/"}, False),
        ("ssm:SendCommand", "x", {}, False),
        ("ssm:SendCommand", "x", {"ssm:resourcetag/name": "docs"}, True),
    ],
)
def test_policies_are_decided_as_iam_does(action, resource, context, expected):
    assert allowed([POLICY], action, resource, context) is expected


def test_what_a_role_would_not_allow_is_recorded_with_its_caller(cloud):
    database = cloud.create_database_stack()
    cloud.deploy(PERENNIAL, database.parameters(), dict.fromkeys(FUNCTIONS, ECHO))

    def as_function(service, name):
        return cloud.client(service, user_agent_appid=f"perennial-docs-{name}")

    as_function("ssm", "backup").get_parameter(Name="/perennial/targets/docs")
    as_function("s3", "backup").put_object(Bucket=database.bucket, Key="weaviate/runs/backup-1/claim.json", Body=b"{}")
    assert cloud.denied == []
    as_function("s3", "backup").put_object(
        Bucket=database.bucket, Key="weaviate/latest_weaviate_backup.manifest.json", Body=b"{}"
    )
    as_function("ec2", "verify").describe_addresses()
    assert [(d["caller"], d["action"]) for d in cloud.denied] == [
        ("perennial-docs-backup", "s3:PutObject"),
        ("perennial-docs-verify", "ec2:DescribeAddresses"),
    ]


def write(folder: Path, text: str) -> Path:
    path = folder / "template.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("AWS::SQS::QueuePolicy", "AWS::SQS::QueueInlinePolicy", "cannot make AWS::SQS::QueueInlinePolicy"),
        (
            "VisibilityTimeout: 30",
            "VisibilityTimeout: 30, MaximumMessageSize: 1024",
            "does not honour .*MaximumMessageSize",
        ),
        ("!Ref Failed", "!Ref Faild", "Faild, which does not exist"),
        ("!GetAtt Failed.Arn, maxReceiveCount", "!GetAtt Failed.Arm, maxReceiveCount", "no attribute Arm"),
        ("Default: hello", "Default: Hello", "does not match"),
        (
            "Failed: {Type: AWS::SQS::Queue}",
            "Failed: {Type: AWS::SQS::Queue, Properties: {QueueName: !Ref Work}}",
            "circle",
        ),
        ("Type: ScheduleV2", "Type: ScheduleV3", "ScheduleV3"),
    ],
)
def test_what_a_template_asks_for_in_vain_is_an_error(cloud, tmp_path, old, new, complaint):
    assert old in ECHO_STACK.read_text()
    with pytest.raises(TemplateError, match=complaint):
        cloud.deploy(write(tmp_path, ECHO_STACK.read_text().replace(old, new)), binaries={"Echo": ECHO})


def test_functions_need_their_programs(cloud, tmp_path):
    with pytest.raises(TemplateError, match="functions are"):
        cloud.deploy(ECHO_STACK)
    with pytest.raises(TemplateError, match="build it first"):
        cloud.deploy(ECHO_STACK, binaries={"Echo": tmp_path / "absent"})
    with pytest.raises(TemplateError, match="no parameters"):
        cloud.deploy(ECHO_STACK, {"Unknown": "x"}, {"Echo": ECHO})


def test_conditions_decide_what_is_made(cloud):
    cloud.deploy(ECHO_STACK, {"Extra": "yes"}, {"Echo": ECHO})
    assert any(url.endswith("Optional") for url in cloud.client("sqs").list_queues()["QueueUrls"])


def test_this_projects_template_is_deployed_whole(make_cloud):
    cloud = make_cloud(timing=Timing(schedule_speed=0), programs=[])
    database = cloud.create_database_stack()
    stack = cloud.deploy(PERENNIAL, database.parameters(), dict.fromkeys(FUNCTIONS, ECHO))
    assert stack["RunDocument"] == database.document
    database.set_capacity(1)
    hook = wait_for(
        "the hook's event",
        lambda: [
            i
            for i in cloud.invocations
            if i.function == "perennial-docs-lifecycle" and "Lifecycle Action" in i.event["detail-type"]
        ],
    )
    assert hook[0].event["detail"]["LifecycleHookName"] == database.launch_hook
    cloud.fire("perennial-docs-backup")
    wait_for("the backup function", lambda: [i for i in cloud.invocations if i.function == "perennial-docs-backup"])
    assert cloud.delivery.lost == []


def test_the_group_carries_a_true_copy_of_the_user_data():
    [*_, copy] = read_template(GROUP)["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"][
        "Fn::Base64"
    ]["Fn::Join"][1]
    assert copy == GROUP.with_name("user-data.sh").read_text()
