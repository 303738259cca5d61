"""The local cloud's own rules, part two: events, functions, queues, schedules, mail, S3, templates."""
from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, FlexibleChecksumError, ResponseStreamingError
from local_cloud import Timing, wait_for
from local_cloud.policies import allowed
from local_cloud.schedules import cron_matches
from local_cloud.template import TemplateError

FUNCTIONS = ("LifecycleFunction", "BackupFunction", "VerifyFunction", "AlertFunction")
ECHO = Path(__file__).parent / "local_cloud" / "echo_function.py"
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters: {Word: {Type: String, Default: hello, AllowedPattern: "^[a-z]+$"}, Extra: {Type: String, Default: "no"}}
Conditions: {Wanted: !Equals [!Ref Extra, "yes"]}
Resources:
  Echo:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Runtime: provided.al2023
      Handler: bootstrap
      FunctionName: !Sub "echo-${Word}"
      Timeout: 2
      Environment: {Variables: {VARIABLE: !Join ["-", [!Ref Word, !Ref AWS::Region, !If [Wanted, "yes", "no"]]]}}
      EventInvokeConfig: {MaximumRetryAttempts: 2, DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Failed.Arn}}}
      Events:
        Said: {Type: EventBridgeRule, Properties: {RuleName: said, Pattern: {source: [test]}, DeadLetterConfig: {Arn: !GetAtt Failed.Arn}}}
        Tick: {Type: ScheduleV2, Properties: {Name: tick, ScheduleExpression: rate(1 minute), Input: '{"at":"<aws.scheduler.scheduled-time>"}'}}
        Work: {Type: SQS, Properties: {Queue: !GetAtt Work.Arn, BatchSize: 10, FunctionResponseTypes: [ReportBatchItemFailures]}}
  Work: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 30, RedrivePolicy: {deadLetterTargetArn: !GetAtt Failed.Arn, maxReceiveCount: 2}}}
  Failed: {Type: AWS::SQS::Queue}
  Rights:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Failed]
      PolicyDocument: {Statement: [{Effect: Allow, Principal: {Service: events.amazonaws.com}, Action: sqs:SendMessage, Resource: "*"}]}
  Optional: {Type: AWS::SQS::Queue, Condition: Wanted}
Outputs: {Url: {Value: !Ref Work}, Name: {Value: !Select [1, !Split ["-", !Ref Echo]]}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "template.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def stack(cloud, tmp_path):
    return cloud.deploy(write(tmp_path, TEMPLATE), binaries={"Echo": ECHO})


def invoke(cloud, event, **more):
    return cloud.client("lambda").invoke(FunctionName="echo-hello", Payload=json.dumps(event), **more)


def say(cloud, detail=None):
    return cloud.bus.emit("test", "Something", detail or {})


def got(cloud):
    return [i.event for i in cloud.invocations]


def failed(cloud, stack):
    return cloud.client("sqs").receive_message(QueueUrl=stack["Failed"], MessageAttributeNames=["All"]).get("Messages", [])


# ---- functions ----------------------------------------------------------------------------------------------------------------

def test_a_function_is_its_real_program_with_lambdas_environment(cloud, stack):
    answer = json.load(invoke(cloud, {"a": 1})["Payload"])
    assert answer == {"echo": {"a": 1}, "name": "echo-hello", "variable": "hello-us-east-1-no"}
    assert stack.outputs["Name"] == "hello"


def test_errors_timeouts_and_crashes_are_told_apart_and_survived(cloud, stack):
    told = {wish: json.load(invoke(cloud, {"do": wish, "seconds": 30})["Payload"]) for wish in ("fail", "die", "sleep")}
    assert told["fail"] == {"errorType": "ValueError", "errorMessage": "as asked"}
    assert told["die"]["errorType"] == "Runtime.ExitError"
    assert told["sleep"]["errorType"] == "Sandbox.Timedout"
    assert json.load(invoke(cloud, {})["Payload"])["echo"] == {}


def test_two_invocations_run_side_by_side(cloud, stack):
    began = time.monotonic()
    threads = [threading.Thread(target=invoke, args=(cloud, {"do": "sleep", "seconds": 1.2})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 2.3
    assert not any(i.failed for i in cloud.invocations)


def test_an_asynchronous_invocation_is_tried_three_times_then_goes_to_its_destination(cloud, stack):
    assert invoke(cloud, {"do": "fail"}, InvocationType="Event")["StatusCode"] == 202
    message = wait_for("the destination", lambda: failed(cloud, stack))[0]
    body = json.loads(message["Body"])
    assert (body["requestPayload"], body["requestContext"]["approximateInvokeCount"]) == ({"do": "fail"}, 3)
    assert len(cloud.invocations) == 3


def test_metrics_are_read_from_the_log(cloud, stack):
    for value in (5, 7.5):
        invoke(cloud, {"do": "measure", "value": value})
    assert cloud.metrics.last("Age", Target="docs") == 7.5
    assert [(m.value, m.unit, m.dimensions) for m in cloud.metrics.named("Age")][1] == (5, "Seconds", ())


def test_a_queue_wakes_a_function_and_only_failed_messages_come_back(cloud, stack):
    sqs = cloud.client("sqs")
    sqs.send_message_batch(QueueUrl=stack["Work"], Entries=[
        {"Id": str(n), "MessageBody": json.dumps({"do": wish, "n": n})} for n, wish in enumerate(("work", "fail"))])
    message = wait_for("the redrive", lambda: failed(cloud, stack))[0]
    assert json.loads(message["Body"])["n"] == 1
    seen = [json.loads(r["body"])["n"] for event in got(cloud) for r in event["Records"]]
    assert (seen.count(0), seen.count(1)) == (1, 2)
    assert {r["attributes"]["ApproximateReceiveCount"] for r in got(cloud)[-1]["Records"]} == {"2"}


# ---- events -------------------------------------------------------------------------------------------------------------------

def test_an_event_reaches_the_function_whose_rule_matches(cloud, stack):
    cloud.bus.emit("other", "Something", {})
    event = say(cloud, {"n": 1})
    wait_for("the invocation", lambda: got(cloud))
    assert got(cloud) == [event]
    cloud.client("events").put_events(Entries=[{"Source": "test", "DetailType": "Put", "Detail": "{}"}])
    wait_for("the second", lambda: len(got(cloud)) == 2)
    cloud.client("events").disable_rule(Name="said")
    say(cloud)
    time.sleep(0.3)
    assert len(got(cloud)) == 2


def test_a_target_that_may_not_be_invoked_gets_nothing_and_the_queue_says_why(cloud, stack):
    permission = json.loads(cloud.client("lambda").get_policy(FunctionName="echo-hello")["Policy"])["Statement"][0]["Sid"]
    cloud.client("lambda").remove_permission(FunctionName="echo-hello", StatementId=permission)
    event = say(cloud)
    message = wait_for("the dead letter", lambda: failed(cloud, stack))[0]
    assert json.loads(message["Body"]) == event
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
    assert got(cloud) == []


def test_delivery_is_retried(cloud, stack):
    cloud.api_faults.add("lambda:Invoke", "ThrottlingException", times=3)
    say(cloud)
    wait_for("the invocation", lambda: got(cloud))
    assert cloud.delivery.done[0]["attempts"] == 4


def test_events_can_be_dropped_doubled_delayed_held_and_shuffled(cloud, stack):
    cloud.bus.drop("Something")
    say(cloud, {"n": 0})
    cloud.bus.duplicate("Something")
    say(cloud, {"n": 1})
    wait_for("the doubled one", lambda: len(got(cloud)) == 2)
    cloud.bus.delay("Something", 0.5)
    say(cloud, {"n": 2})
    with cloud.bus.shuffle("Something", seed=1):
        for n in (3, 4, 5):
            say(cloud, {"n": n})
        wait_for("the delayed one", lambda: len(got(cloud)) == 3)
    wait_for("the rest", lambda: len(got(cloud)) == 6)
    assert sorted(e["detail"]["n"] for e in got(cloud)) == [1, 1, 2, 3, 4, 5]
    assert [e["detail"]["n"] for e in cloud.bus.dropped] == [0]


def test_schedules_fire_on_demand_and_by_the_clock(cloud, stack):
    cloud.fire("tick")
    event = wait_for("the invocation", lambda: got(cloud))[0]
    datetime.strptime(event["at"], "%Y-%m-%dT%H:%M:%SZ")
    with pytest.raises(KeyError, match="there are"):
        cloud.fire("tock")
    cloud.timing.schedule_speed = 120
    wait_for("two more", lambda: len(got(cloud)) >= 3)


@pytest.mark.parametrize(("text", "moment", "due"), [
    ("0 3 * * ? *", "2026-11-21T03:00", True), ("0 3 * * ? *", "2026-11-21T03:01", False), ("0/15 * * * ? *", "2026-11-21T03:45", True),
    ("0 3 ? * SUN *", "2026-11-22T03:00", True), ("0 3 ? * 2-6 *", "2026-11-22T03:00", False), ("0 3 1,15 * ? 2026", "2026-11-15T03:00", True)])
def test_cron_has_six_fields(text, moment, due):
    assert cron_matches(text, datetime.fromisoformat(moment)) is due


def test_cron_as_unix_writes_it_is_refused():
    with pytest.raises(ValueError, match=r"\?"):
        cron_matches("0 3 * * * *", datetime(2026, 11, 21))


def test_mail_is_caught_and_subjects_are_checked(cloud):
    sns = cloud.client("sns")
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="operator@example.com")
    sns.publish(TopicArn=topic, Subject="docs: backup is late", Message="text")
    assert [(m.to, m.subject, m.body) for m in cloud.mail] == [("operator@example.com", "docs: backup is late", "text")]
    for subject in ("two\nlines", "x" * 101, "größer", ""):
        with pytest.raises(ClientError):
            sns.publish(TopicArn=topic, Subject=subject, Message="text")


# ---- rights -------------------------------------------------------------------------------------------------------------------

POLICY = {"Statement": [
    {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": "arn:aws:s3:::b/p/*"},
    {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b", "Condition": {"StringLikeIfExists": {"s3:prefix": "p/*"}}},
    {"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": "*", "Condition": {"StringEquals": {"ssm:resourceTag/Name": "docs"}}},
    {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::b/p/secret"}]}


@pytest.mark.parametrize(("action", "resource", "context", "expected"), [
    ("s3:GetObject", "arn:aws:s3:::b/p/key", {}, True), ("s3:PutObject", "arn:aws:s3:::b/p/key", {}, False),
    ("s3:GetObject", "arn:aws:s3:::b/other", {}, False), ("s3:GetObject", "arn:aws:s3:::b/p/secret", {}, False),
    ("s3:ListBucket", "arn:aws:s3:::b", {}, True), ("s3:ListBucket", "arn:aws:s3:::b", {"s3:prefix": "q/"}, False),
    ("ssm:SendCommand", "x", {}, False), ("ssm:SendCommand", "x", {"ssm:resourcetag/name": "docs"}, True)])
def test_policies_are_decided_as_iam_does(action, resource, context, expected):
    assert allowed([POLICY], action, resource, context) is expected


def test_what_a_role_would_not_allow_is_recorded_with_its_caller(cloud):
    database = cloud.create_database_stack()
    cloud.deploy(Path(__file__).parents[1] / "infra" / "template.yaml", database.parameters(), dict.fromkeys(FUNCTIONS, ECHO))

    def as_function(service, name):
        return cloud.client(service, user_agent_appid=f"perennial-docs-{name}")
    as_function("ssm", "backup").get_parameter(Name="/perennial/targets/docs")
    as_function("s3", "backup").put_object(Bucket=database.bucket, Key="weaviate/runs/backup-1/claim.json", Body=b"{}")
    assert cloud.denied == []
    as_function("s3", "backup").put_object(Bucket=database.bucket, Key="weaviate/latest_weaviate_backup.manifest.json", Body=b"{}")
    as_function("ec2", "verify").describe_addresses()
    assert [(d["caller"], d["action"]) for d in cloud.denied] == [
        ("perennial-docs-backup", "s3:PutObject"), ("perennial-docs-verify", "ec2:DescribeAddresses")]


# ---- injected errors ----------------------------------------------------------------------------------------------------------

def test_api_errors_are_injected_by_call_and_a_lost_reply_has_happened(cloud):
    ec2 = cloud.client("ec2")
    cloud.api_faults.add("ec2:DescribeAddresses", "RequestLimitExceeded", status=503)
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        ec2.describe_addresses()
    assert ec2.describe_addresses()["Addresses"] == []
    cloud.api_faults.add("ec2:AllocateAddress", lose_reply=True)
    with pytest.raises(ClientError, match="InternalFailure"):
        ec2.allocate_address(Domain="vpc")
    assert len(ec2.describe_addresses()["Addresses"]) == 1
    assert [c["call"] for c in cloud.calls][-2:] == ["ec2:AllocateAddress", "ec2:DescribeAddresses"]


@pytest.fixture
def s3(cloud):
    s3 = cloud.client("s3", max_pool_connections=20)
    s3.create_bucket(Bucket="bucket")
    return s3


def test_of_many_conditional_writers_one_wins(cloud, s3):
    for key in map(str, range(10)):
        won, lost = [], []

        def write(key=key, won=won, lost=lost):
            try:
                won.append(s3.put_object(Bucket="bucket", Key=key, Body=b"x", IfNoneMatch="*"))
            except ClientError as error:
                lost.append(error.response["Error"]["Code"])
        threads = [threading.Thread(target=write) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), set(lost)) == (1, {"PreconditionFailed"})


def test_s3_errors_are_injected(cloud, s3):
    body = bytes(range(256)) * 4096
    s3.put_object(Bucket="bucket", Key="a/b c+d", Body=body)
    for code, status in (("SlowDown", 503), ("ConditionalRequestConflict", 409), ("AccessDenied", 403), ("InternalError", 500)):
        cloud.s3_faults.add("GetObject", "a/.*", error=code)
        with pytest.raises(ClientError) as caught:
            s3.get_object(Bucket="bucket", Key="a/b c+d")
        assert (caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    for how, error in (("corrupt", FlexibleChecksumError), ("truncate", ResponseStreamingError)):
        cloud.s3_faults.add("GetObject", **{how: True})
        with pytest.raises(error):
            s3.get_object(Bucket="bucket", Key="a/b c+d")["Body"].read()
    assert s3.get_object(Bucket="bucket", Key="a/b c+d")["Body"].read() == body
    with pytest.raises(ClientError, match="Access Denied"):
        s3.get_object(Bucket="bucket", Key="a/b c+d", ExpectedBucketOwner="999999999999")


def test_a_lost_reply_was_done_and_a_held_request_was_not(cloud, s3):
    cloud.s3_faults.add("PutObject", "lost", lose_reply=True)
    with pytest.raises(ConnectionClosedError):
        s3.put_object(Bucket="bucket", Key="lost", Body=b"1", IfNoneMatch="*")
    held = cloud.s3_faults.add("PutObject", "held", hold=True)
    writer = threading.Thread(target=s3.put_object, kwargs={"Bucket": "bucket", "Key": "held", "Body": b"1"})
    writer.start()
    held.wait_reached()
    assert [o["Key"] for o in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["lost"]
    held.release()
    writer.join()
    assert [o["Key"] for o in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["held", "lost"]
    assert held.hits == [("PutObject", "held")]


def test_new_objects_are_told_where_notifications_are_on(cloud, s3):
    s3.put_object(Bucket="bucket", Key="early", Body=b"1")
    s3.put_bucket_notification_configuration(Bucket="bucket", NotificationConfiguration={"EventBridgeConfiguration": {}})
    with pytest.raises(ClientError):
        s3.put_object(Bucket="bucket", Key="early", Body=b"1", IfNoneMatch="*")
    etag = s3.put_object(Bucket="bucket", Key="one", Body=b"123")["ETag"]
    upload = s3.create_multipart_upload(Bucket="bucket", Key="two", ChecksumAlgorithm="CRC32")["UploadId"]
    part = s3.upload_part(Bucket="bucket", Key="two", UploadId=upload, PartNumber=1, Body=b"12345", ChecksumAlgorithm="CRC32")
    s3.complete_multipart_upload(Bucket="bucket", Key="two", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]})
    told = [(e["detail"]["object"]["key"], e["detail"]["object"]["size"], e["detail"]["reason"]) for e in cloud.events]
    assert told == [("one", 3, "PutObject"), ("two", 5, "CompleteMultipartUpload")]
    assert cloud.events[0]["detail"]["object"]["etag"] == etag.strip('"')


# ---- templates ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("old", "new", "complaint"), [
    ("AWS::SQS::QueuePolicy", "AWS::SQS::QueueInlinePolicy", "cannot make AWS::SQS::QueueInlinePolicy"),
    ("VisibilityTimeout: 30", "VisibilityTimeout: 30, MaximumMessageSize: 1024", "does not honour .*MaximumMessageSize"),
    ("!Ref Failed", "!Ref Faild", "Faild, which does not exist"),
    ("!GetAtt Failed.Arn, maxReceiveCount", "!GetAtt Failed.Arm, maxReceiveCount", "no attribute Arm"),
    ("Default: hello", "Default: Hello", "does not match"),
    ("Failed: {Type: AWS::SQS::Queue}", "Failed: {Type: AWS::SQS::Queue, Properties: {QueueName: !Ref Work}}", "circle"),
    ("Type: ScheduleV2", "Type: ScheduleV3", "ScheduleV3")])
def test_what_a_template_asks_for_in_vain_is_an_error(cloud, tmp_path, old, new, complaint):
    assert old in TEMPLATE
    with pytest.raises(TemplateError, match=complaint):
        cloud.deploy(write(tmp_path, TEMPLATE.replace(old, new)), binaries={"Echo": ECHO})


def test_functions_need_their_programs(cloud, tmp_path):
    path = write(tmp_path, TEMPLATE)
    with pytest.raises(TemplateError, match="functions are"):
        cloud.deploy(path)
    with pytest.raises(TemplateError, match="build it first"):
        cloud.deploy(path, binaries={"Echo": tmp_path / "absent"})
    with pytest.raises(TemplateError, match="no parameters"):
        cloud.deploy(path, {"Unknown": "x"}, {"Echo": ECHO})


def test_conditions_decide_what_is_made(cloud, tmp_path):
    cloud.deploy(write(tmp_path, TEMPLATE), {"Extra": "yes"}, {"Echo": ECHO})
    assert any(url.endswith("Optional") for url in cloud.client("sqs").list_queues()["QueueUrls"])


def test_this_projects_template_is_deployed_whole(make_cloud):
    cloud = make_cloud(timing=Timing(schedule_speed=0), programs=[])
    database = cloud.create_database_stack()
    template = Path(__file__).parents[1] / "infra" / "template.yaml"
    stack = cloud.deploy(template, database.parameters(), dict.fromkeys(FUNCTIONS, ECHO))
    assert stack["RunDocument"] == database.document
    database.set_capacity(1)
    hook = wait_for("the hook's event", lambda: [
        i for i in cloud.invocations if i.function == "perennial-docs-lifecycle" and "Lifecycle Action" in i.event["detail-type"]])
    assert hook[0].event["detail"]["LifecycleHookName"] == database.launch_hook
    cloud.fire("perennial-docs-backup")
    wait_for("the backup function", lambda: [i for i in cloud.invocations if i.function == "perennial-docs-backup"])
    assert cloud.delivery.lost == []
