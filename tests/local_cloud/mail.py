"""SNS: e-mails are caught instead of sent, and subjects are held to SNS's rule."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moto.sns.exceptions import InvalidParameterValue
from moto.sns.models import Topic


@dataclass(frozen=True)
class Mail:
    to: str
    topic: str
    subject: str | None
    body: str


def install(cloud) -> None:
    @cloud.patches.extend(Topic)
    def publish(base, topic, message, subject=None, **kw):
        if subject is not None and not re.fullmatch(r"[!-~][ -~]{0,99}", subject):
            raise InvalidParameterValue(
                "Subject must be ASCII text of at most 100 characters, without line breaks or control characters"
            )
        if len(message.encode()) > 262144:
            raise InvalidParameterValue("Message too long")
        for subscription in topic.sns_backend.list_subscriptions_by_topic(topic_arn=topic.arn)[0]:
            if subscription.protocol in ("email", "email-json"):
                cloud.mail.append(Mail(subscription.endpoint, topic.arn, subject, message))
        return base(message, subject=subject, **kw)
