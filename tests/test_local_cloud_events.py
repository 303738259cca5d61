"""The local cloud's own rules: functions, events, queues, schedules, mail."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from local_cloud import wait_for
from local_cloud.schedules import cron_matches

HERE = Path(__file__).parent / "local_cloud"


@pytest.fixture
def stack(cloud):
    return cloud.deploy(HERE / "echo.yaml", binaries={"Echo": HERE / "echo_function.py"})


def invoke(cloud, event, **more):
    return cloud.client("lambda").invoke(FunctionName="echo-hello", Payload=json.dumps(event), **more)


def say(cloud, detail=None):
    return cloud.bus.emit("test", "Something", detail or {})


def got(cloud):
    return [i.event for i in cloud.invocations]


def failed(cloud, stack):
    return (
        cloud.client("sqs").receive_message(QueueUrl=stack["Failed"], MessageAttributeNames=["All"]).get("Messages", [])
    )


# ---- functions -------------------------------------------------------------------------------------------------------


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
    sqs.send_message_batch(
        QueueUrl=stack["Work"],
        Entries=[
            {"Id": str(n), "MessageBody": json.dumps({"do": wish, "n": n})} for n, wish in enumerate(("work", "fail"))
        ],
    )
    message = wait_for("the redrive", lambda: failed(cloud, stack))[0]
    assert json.loads(message["Body"])["n"] == 1
    seen = [json.loads(r["body"])["n"] for event in got(cloud) for r in event["Records"]]
    assert (seen.count(0), seen.count(1)) == (1, 2)
    assert {r["attributes"]["ApproximateReceiveCount"] for r in got(cloud)[-1]["Records"]} == {"2"}


# ---- events ----------------------------------------------------------------------------------------------------------


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
    permission = json.loads(cloud.client("lambda").get_policy(FunctionName="echo-hello")["Policy"])["Statement"][0][
        "Sid"
    ]
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


@pytest.mark.parametrize(
    ("text", "moment", "due"),
    [
        ("0 3 * * ? *", "2026-11-21T03:00", True),
        ("0 3 * * ? *", "2026-11-21T03:01", False),
        ("0/15 * * * ? *", "2026-11-21T03:45", True),
        ("0 3 ? * SUN *", "2026-11-22T03:00", True),
        ("0 3 ? * 2-6 *", "2026-11-22T03:00", False),
        ("0 3 1,15 * ? 2026", "2026-11-15T03:00", True),
    ],
)
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
