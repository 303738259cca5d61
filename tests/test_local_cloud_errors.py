"""The local cloud's own rules: S3, and the errors that tests inject."""

from __future__ import annotations

import threading

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, FlexibleChecksumError, ResponseStreamingError


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
    s3 = cloud.client("s3")
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
    for code, status in (
        ("SlowDown", 503),
        ("ConditionalRequestConflict", 409),
        ("AccessDenied", 403),
        ("InternalError", 500),
    ):
        cloud.s3_faults.add("GetObject", "a/.*", error=code)
        with pytest.raises(ClientError) as caught:
            s3.get_object(Bucket="bucket", Key="a/b c+d")
        assert (
            caught.value.response["Error"]["Code"],
            caught.value.response["ResponseMetadata"]["HTTPStatusCode"],
        ) == (code, status)
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
    s3.put_bucket_notification_configuration(
        Bucket="bucket", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    with pytest.raises(ClientError):
        s3.put_object(Bucket="bucket", Key="early", Body=b"1", IfNoneMatch="*")
    etag = s3.put_object(Bucket="bucket", Key="one", Body=b"123")["ETag"]
    upload = s3.create_multipart_upload(Bucket="bucket", Key="two", ChecksumAlgorithm="CRC32")["UploadId"]
    part = s3.upload_part(
        Bucket="bucket", Key="two", UploadId=upload, PartNumber=1, Body=b"12345", ChecksumAlgorithm="CRC32"
    )
    s3.complete_multipart_upload(
        Bucket="bucket",
        Key="two",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]},
    )
    told = [(e["detail"]["object"]["key"], e["detail"]["object"]["size"], e["detail"]["reason"]) for e in cloud.events]
    assert told == [("one", 3, "PutObject"), ("two", 5, "CompleteMultipartUpload")]
    assert cloud.events[0]["detail"]["object"]["etag"] == etag.strip('"')
