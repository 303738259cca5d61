"""Tells what happens in the cloud while it happens: events, calls of the functions, records in the repository, e-mails.

Nothing here is expected or ordered beforehand: what is printed is what was seen, when it was seen. The story waits for
moments (`until`), by the word that each carries.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from local_cloud import LocalCloud
from local_cloud.database import Database

from .console import Console

LOOK_EVERY = 0.02  # seconds
SSM_STATUS = "EC2 Command Invocation Status-change Notification"


@dataclass(frozen=True)
class Moment:
    word: str  # what the story waits for, such as `claimed`
    about: str  # the instance or run
    at: float
    details: dict = field(default_factory=dict)


class Watch:
    def __init__(self, cloud: LocalCloud, database: Database, console: Console) -> None:
        self._cloud, self._database, self._console = cloud, database, console
        self.moments: list[Moment] = []
        self._problem: BaseException | None = None
        self._sources = [  # causes before their effects
            (cloud.calls, self._on_call),
            (cloud.events, self._on_event),
            (cloud.invocations, self._on_invocation),
            (cloud.mail, self._on_mail),
        ]
        self._generation = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def until(self, word: str, about: Callable[[str], bool] = lambda _: True, *, since: float, limit: float) -> Moment:
        """The first such moment after `since`; AssertionError after `limit` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self._problem:
                raise self._problem
            found = [m for m in list(self.moments) if m.word == word and m.at >= since and about(m.about)]
            if found:
                return found[0]
            time.sleep(LOOK_EVERY)
        raise AssertionError(f"waited {limit:g} s for the moment {word!r}, which did not come")

    # ---- looking -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for thing, tell in self._things():
                tell(thing)
        except BaseException as problem:
            if not self._cloud.stopping:
                self._problem = problem

    def _things(self) -> Iterator[tuple[object, Callable]]:
        """What is new in each source, for ever. Effects are looked at first and told last, so that no effect is told
        before its cause.
        """
        seen = [len(source) for source, _ in self._sources]
        while not self._done.wait(LOOK_EVERY):
            lengths = [len(source) for source, _ in reversed(self._sources)][::-1]
            for number, (source, tell) in enumerate(self._sources):
                yield from ((thing, tell) for thing in source[seen[number] : lengths[number]])
            seen = lengths

    def _tell(self, who: str, what: str, word: str = "", about: str = "", details: dict | None = None) -> None:
        self._console.line(who, what)
        if word:
            self.moments.append(Moment(word, about, time.monotonic(), details or {}))

    def _read(self, key: str) -> dict:
        """A record in the repository."""
        return json.load(self._cloud.client("s3").get_object(Bucket=self._database.bucket, Key=key)["Body"])

    # ---- events ------------------------------------------------------------------------------------------------------

    def _on_event(self, event: dict) -> None:
        kind, detail = event["detail-type"], event["detail"]
        if event["source"] == "aws.autoscaling":
            self._on_group(kind, detail)
        elif kind == SSM_STATUS:
            self._on_command(detail)
        elif kind == "Object Created":
            self._on_object(detail["object"]["key"].removeprefix(f"{self._database.prefix}/"))

    def _on_group(self, kind: str, detail: dict) -> None:
        instance = detail["EC2InstanceId"]
        word, what = {
            "EC2 Instance-terminate Lifecycle Action": ("ending", f"{instance} must go; its terminate hook waits"),
            "EC2 Instance Terminate Successful": ("ended", f"{instance} has ended"),
            "EC2 Instance-launch Lifecycle Action": ("pending", f"{instance} launched; it is in Pending:Wait"),
            "EC2 Instance Launch Successful": ("in service", f"{instance} is InService"),
        }.get(kind, ("unexpected", f"{kind}: {instance} {detail.get('StatusMessage', '')}"))
        self._tell("Auto Scaling", what, word, instance)

    def _on_command(self, detail: dict) -> None:
        status = detail["status"]
        what = {"Pending": f"Run Command {detail['document-name']} to {detail['instance-id']}", "InProgress": "running"}
        self._tell("SSM", what.get(status, f"the command ended: {status}"), "command", detail["instance-id"])

    def _on_object(self, key: str) -> None:
        if key.startswith("latest_") and key.endswith(".manifest.json"):
            self._on_pointer(self._read(f"{self._database.prefix}/{key}"))
            return
        folder, _, name = key.rpartition("/")
        run = folder.removeprefix("runs/")
        if folder.startswith("runs/") and name == "claim.json":
            claim = self._read(f"{self._database.prefix}/{key}")
            backup = claim.get("backup_id")
            restores = "from backup " + backup if backup else "with an empty database"
            what = restores if run.startswith("restore-") else f"on {claim['instance']}"
            self._tell(self._claimer(run), f"claimed {run}, {what}", "claimed", run, claim)
        elif folder.startswith("runs/") and name == "result.json":
            result = self._read(f"{self._database.prefix}/{key}")
            self._tell("perennial", outcome(result), "result", run, result)
            self._console.list(result["findings"])
        elif folder.startswith("backups/") and name == "manifest.json":
            manifest = self._read(f"{self._database.prefix}/{key}")
            what = (
                f"wrote the manifest of {manifest['backup_id']}: {len(manifest['objects'])} objects, {size(manifest)}"
            )
            self._tell("perennial", what, "manifest", manifest["backup_id"], manifest)

    @staticmethod
    def _claimer(run: str) -> str:
        return "backup" if run.startswith("backup-") else "lifecycle"

    def _on_pointer(self, pointer: dict) -> None:
        generation, owner = pointer["generation"], pointer.get("owner")
        if generation != self._generation:
            self._generation = generation
            self._tell("lifecycle", f"took over: generation {generation}, owner {owner}", "taken over", owner, pointer)
        else:
            self._tell("perennial", f"pointer moved to {pointer.get('backup_id')}", "pointer", owner, pointer)

    # ---- what functions do, and say ----------------------------------------------------------------------------------

    def _on_call(self, call: dict) -> None:
        function = f"perennial-{self._database.name}-lifecycle"
        if call["caller"] != function:
            return
        given = call.get("parameters", {})
        address = f"{self._database.kind_of_address} {self._database.address}"
        moves = f"moves the {address} to {given.get('InstanceId') or self._owner(given.get('NetworkInterfaceId'))}"
        takes = f"takes the {address} away, so that no client can write any more"
        what = {
            "ec2:AssociateAddress": moves,
            "ec2:AttachNetworkInterface": moves,
            "ec2:AssignPrivateIpAddresses": moves,
            "ec2:DisassociateAddress": takes,
            "ec2:DetachNetworkInterface": takes,
            "ec2:UnassignPrivateIpAddresses": takes,
            "autoscaling:CompleteLifecycleAction": f"answers the hook: {given.get('LifecycleActionResult')}",
        }.get(call["call"])
        if what:
            self._tell("lifecycle", what, call["call"])

    def _owner(self, interface: str | None) -> str:
        found = [
            m.id for m in self._cloud.machines.values() if any(n.id == interface for n in m.instance.nics.values())
        ]
        return found[0] if found else "nobody known"

    def _on_invocation(self, invocation) -> None:
        who = invocation.function.removeprefix(f"perennial-{self._database.name}-")
        if invocation.failed:
            self._tell(who, f"failed: {invocation.response}", "failed", who)
        elif who == "verify":
            report = invocation.result
            what = f"{report['verdict']}: {report['objects_good']} of {report['objects']} objects of "
            what += f"{report['backup_id']}, {megabytes(report['bytes_read'])} read"
            what += f", part {report['subset']} of the data" if report.get("subset") else ""
            self._tell("verify", "; ".join([what, *report["findings"]]), "verified", report["backup_id"], report)

    def _on_mail(self, mail) -> None:
        self._tell("e-mail", mail.subject or "(no subject)", "mail", mail.subject or "")


def outcome(result: dict) -> str:
    if not result["ok"]:
        return f"{result['run']} failed: {result['error']['code']}: {result['error']['message']}"
    return f"{result['run']} is done: {result['objects']} objects in the database, {seconds(result):.1f} s"


def seconds(result: dict) -> float:
    began, ended = (moment(result[key]) for key in ("started_at", "finished_at"))
    return ended - began


def moment(text: str) -> float:
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def size(manifest: dict) -> str:
    return megabytes(manifest["size_bytes"])


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
