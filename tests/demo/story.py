"""The story that the demo tells, step by step, and what it compares on the way.

Whatever differs from what was promised is collected in `differences` and told at the end; what never comes ends the
story with an AssertionError.
"""

from __future__ import annotations

import itertools
import time
import uuid
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np

from local_cloud import LocalCloud
from local_cloud.cloud import REPOSITORY, built
from local_cloud.database import Database

from .console import Console
from .corpus import NAMESPACE, Document
from .embed import DIMENSIONS, Embedder
from .table import Replacement, table
from .watch import Watch, seconds
from .weaviate_client import Answer, Row, Weaviate
from .writer import Writer

COLLECTION = "Docstring"
FUNCTIONS = {
    "LifecycleFunction": "lifecycle",
    "BackupFunction": "backup",
    "VerifyFunction": "verify",
    "AlertFunction": "alert",
}
QUESTIONS = [
    "Which function parses an ISO date string?",
    "How do I find the median of a list of numbers?",
    "How do I compress a file with gzip?",
    "How do I send an e-mail over SMTP?",
    "How do I sort a graph of dependencies topologically?",
    "How do I decode base64 data?",
    "How do I read the rows of a CSV file?",
    "How do I walk through all files below a folder?",
]
ANSWERS = 10
BATCH = 250
LATE_ROWS = 25  # written between the backup and the death
WRITES_BEFORE, WRITES_AFTER = 100, 100  # of the client that never stops, around the planned replacement
PATIENCE = 180  # seconds for anything that the cloud does


class Story:
    def __init__(
        self,
        cloud: LocalCloud,
        console: Console,
        corpus: Future[list[tuple[Document, Sequence[float]]]],
        embedder: Embedder,
    ) -> None:
        self.cloud, self.console, self.corpus, self.embedder = cloud, console, corpus, embedder
        self.differences: list[str] = []
        self.died, self.planned = Replacement(), Replacement()
        self.database: Database
        self.watch: Watch

    def tell(self) -> None:
        self.deploy()
        with Watch(self.cloud, self.database, self.console) as self.watch:
            self.first_launch()
            self.load()
            self.ask()
            self.back_up()
            self.write_more()
            self.hardware_dies()
            self.planned_replacement()
        self.close()

    # ---- chapters ----------------------------------------------------------------------------------------------------

    def deploy(self) -> None:
        self.console.chapter("Deploy: a database's side and Perennial, from the templates in infra/")
        self.database = database = self.cloud.create_database_stack()
        self.console.line(
            "group.yaml", f"bucket {database.bucket}, Elastic IP {database.address}, Auto Scaling group of one"
        )
        programs = {function: built(program) for function, program in FUNCTIONS.items()}
        self.cloud.deploy(REPOSITORY / "infra" / "template.yaml", database.parameters(), programs)
        self.console.line(
            "template.yaml", f"functions {', '.join(FUNCTIONS.values())}; schedules, queues, document, topic"
        )

    def first_launch(self) -> None:
        self.console.chapter("First launch: the repository is empty, and the settings allow that once")
        began = time.monotonic()
        self.database.set_capacity(1)
        self.instance = self.watch.until("in service", since=began, limit=PATIENCE).about
        self.client = self.new_client()
        self.client.create_collection()
        self.console.line("client", f"{self.database.url} answers; made the collection {COLLECTION}")

    def load(self) -> None:
        self.console.chapter("Load: the docstrings of Python's standard library, as a client, through the Elastic IP")
        rows = [Row(d.id, d.name, d.text, array("f", vector)) for d, vector in self.corpus.result()]
        self.late, self.rows = rows[:: len(rows) // LATE_ROWS][:LATE_ROWS], {}
        late = {row.id for row in self.late}
        self.write([row for row in rows if row.id not in late])
        count = self.client.count()
        self.same("rows after loading", len(self.rows), count)
        self.console.line("client", f"{count} rows written and counted")

    def ask(self) -> None:
        self.console.chapter("Ask")
        self.vectors = [list(map(float, vector)) for vector in self.embedder(QUESTIONS)]
        self.answers = self.answered()
        self.show(self.answers[0])

    def back_up(self) -> None:
        self.console.chapter("Back up and verify: both schedules fire")
        began = time.monotonic()
        self.cloud.fire(f"perennial-{self.database.name}-backup")
        result = self.result("backup-", began)
        self.died.backup_seconds, self.died.backup_bytes = seconds(result), result["size_bytes"]
        self.same("rows in the backup", len(self.rows), result["objects"])
        self.verify(result["backup_id"], began)

    def verify(self, backup: str, since: float) -> None:
        """Once because its manifest appeared, once because the schedule fired."""
        self.verdict(backup, since)
        fired = time.monotonic()
        self.cloud.fire(f"perennial-{self.database.name}-verify")
        self.verdict(backup, fired)

    def write_more(self) -> None:
        self.console.chapter(f"Write {LATE_ROWS} rows more: they are in no backup yet")
        self.backed_up = dict(self.rows)
        self.write(self.late)
        self.console.line(
            "client", f"{self.client.count()} rows now; an unplanned loss will lose exactly these {LATE_ROWS}"
        )

    def hardware_dies(self) -> None:
        self.console.chapter("The hardware dies; nobody does anything")
        began, old = time.monotonic(), self.instance
        self.cloud.kill(old)
        self.console.line("you", f"killed {old}: its processes and its disk are gone")
        self.became(old, began, self.died)
        self.died.rows_before = len(self.rows)
        self.compare(self.backed_up, self.died)
        self.died.lost_after_backup = len(self.rows.keys() - self.present.keys())
        self.same("rows lost that were written after the backup", LATE_ROWS, self.died.lost_after_backup)
        self.show_mail("restored and serving")

    def planned_replacement(self) -> None:
        self.console.chapter("A planned replacement, under a client that never stops writing")
        began = time.monotonic()
        self.write(self.late)
        self.console.line(
            "client", f"wrote the {LATE_ROWS} lost rows again, as the e-mail about the lost instance says"
        )
        self.answers = self.answered()
        with Writer(self.new_client(), self.endless_rows()) as writer:
            self.wait_for("the first writes", lambda: len(writer.acknowledged) >= WRITES_BEFORE, writer)
            self.replace(writer, began)
            more = len(writer.acknowledged) + WRITES_AFTER
            self.wait_for("writes to go on", lambda: len(writer.acknowledged) >= more, writer)
        self.console.line(
            "client",
            f"{len(writer.acknowledged)} rows acknowledged in all; {writer.refused} tries refused, "
            f"for {writer.longest_refusal:.1f} s at a stretch",
        )
        self.planned.away_seconds = writer.longest_refusal
        self.rows.update(writer.acknowledged)
        self.planned.rows_before = len(self.rows)
        self.compare(self.rows, self.planned)

    def replace(self, writer: Writer, since: float) -> None:
        self.console.restart_clock()
        began, old = time.monotonic(), self.instance
        self.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=old, ShouldDecrementDesiredCapacity=False
        )
        self.console.line(
            "you", f"terminate {old} through its group; {len(writer.acknowledged)} rows acknowledged so far"
        )
        final = self.result("final-", began)
        self.planned.backup_seconds, self.planned.backup_bytes = seconds(final), final["size_bytes"]
        self.became(old, began, self.planned)

    def close(self) -> None:
        self.console.chapter("What was seen")
        self.nothing_unwanted()
        self.console.plain("", *("  " + line for line in table(self.died, self.planned)))
        self.console.plain(
            "",
            "  EC2's own delays are cut short here (about a second from death to the next boot). On AWS add what Auto Scaling takes to",
            "  notice (about a minute) and what the instance takes to boot and register with SSM (one to three).",
        )

    # ---- parts of chapters -------------------------------------------------------------------------------------------

    def became(self, old: str, began: float, measured: Replacement) -> None:
        """Waits until another instance serves; notes who and how long it took."""
        restored = self.watch.until(
            "result", lambda run: run.startswith("restore-") and old not in run, since=began, limit=PATIENCE
        )
        if not restored.details["ok"]:
            raise AssertionError(f"the restore failed: {restored.details['error']}")
        measured.restore_seconds = seconds(restored.details)
        self.client = self.new_client()
        self.wait_for("an answer through the address", self.client.ready)
        measured.away_seconds = time.monotonic() - began
        self.console.line("client", f"{self.database.url} answers again")
        self.instance = self.watch.until(
            "in service", lambda instance: instance != old, since=began, limit=PATIENCE
        ).about
        self.same("holder of the address", self.instance, self.database.holder())
        self.watch.until("mail", lambda subject: "restored and serving" in subject, since=began, limit=PATIENCE)

    def compare(self, expected: dict[str, Row], measured: Replacement) -> None:
        """Every row by its id, name, text and vector; every question by its answers."""
        self.present = {row.id: row for row in self.client.rows()}
        measured.rows_after = len(self.present)
        lost = expected.keys() - self.present.keys()
        measured.lost_before_backup = len(lost)
        changed = [i for i in expected.keys() & self.present.keys() if expected[i] != self.present[i]]
        self.same("acknowledged rows lost", [], sorted(lost))
        self.same("rows that came back changed", [], changed)
        self.console.line(
            "client",
            f"{len(self.present)} rows read back by id: {len(lost)} of {len(expected)} missing, {len(changed)} changed",
        )
        self.same_answers(measured)

    def same_answers(self, measured: Replacement) -> None:
        answers = self.answered()
        same = [before == after for before, after in zip(self.answers, answers, strict=True)]
        measured.same_answers = sum(same)
        self.show(answers[0])
        self.console.line(
            "client",
            f"{sum(same)} of {len(same)} questions are answered as before, by the same {ANSWERS} rows at the same distances",
        )
        self.same("questions answered the same", len(QUESTIONS), sum(same))

    def nothing_unwanted(self) -> None:
        """What should not have happened while all went well."""
        critical = [mail.subject for mail in self.cloud.mail if "CRITICAL" in (mail.subject or "")]
        self.same("critical e-mails", [], critical)
        self.same("failed invocations", [], [f"{i.function}: {i.response}" for i in self.cloud.invocations if i.failed])
        self.same("events that reached nobody", [], self.cloud.delivery.lost)
        self.same(
            "calls that IAM would have refused",
            [],
            [f"{d['caller']} {d['action']} {d['resource']}" for d in self.cloud.denied],
        )
        self.console.line(
            "cloud",
            f"{len(self.cloud.invocations)} invocations, {len(self.cloud.mail)} e-mails; failed, lost or refused by IAM: none"
            if not self.differences
            else f"{len(self.cloud.invocations)} invocations, {len(self.cloud.mail)} e-mails",
        )

    def result(self, kind: str, since: float) -> dict:
        """How the next run of that kind ends."""
        found = self.watch.until("result", lambda run: run.startswith(kind), since=since, limit=PATIENCE).details
        if not found["ok"]:
            raise AssertionError(f"{found['run']} failed: {found['error']}")
        return found

    def verdict(self, backup: str, since: float) -> None:
        report = self.watch.until("verified", lambda about: about == backup, since=since, limit=PATIENCE).details
        self.same(f"verdict on {backup}", "good", report["verdict"])

    def show_mail(self, subject: str) -> None:
        mail = next(m for m in self.cloud.mail if subject in (m.subject or ""))
        self.console.block(f"To: {mail.to}\nSubject: {mail.subject}\n\n{mail.body}")

    # ---- the client --------------------------------------------------------------------------------------------------

    def new_client(self) -> Weaviate:
        return Weaviate(self.database.url, self.database.api_key, COLLECTION)

    def write(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            self.client.write(batch)
            self.rows.update((row.id, row) for row in batch)

    def endless_rows(self) -> Iterator[Row]:
        """In random directions, which in so many dimensions are nearly at right angles to every question: what is written
        meanwhile changes no answer.
        """
        random = np.random.default_rng(seed=1)
        for number in itertools.count(1):
            text = f"note {number} of the client that never stops"
            yield Row(
                str(uuid.uuid5(NAMESPACE, text)), f"note {number}", text, array("f", random.normal(size=DIMENSIONS))
            )

    def answered(self) -> list[list[Answer]]:
        return [self.client.nearest(vector, ANSWERS) for vector in self.vectors]

    def show(self, answers: list[Answer]) -> None:
        self.console.line("client", QUESTIONS[0])
        width = max(len(answer.name) for answer in answers[:3])
        self.console.list([f"{a.distance:.3f}  {a.name:<{width}}  {a.text.splitlines()[0]}" for a in answers[:3]])

    # ---- comparing ---------------------------------------------------------------------------------------------------

    def same(self, what: str, expected: object, seen: object) -> None:
        if expected != seen:
            self.differences.append(f"{what}: expected {expected!r}, seen {seen!r}")
            self.console.line("DIFFERS", self.differences[-1])

    def wait_for(self, what: str, look: Callable[[], bool], writer: Writer | None = None) -> None:
        end = time.monotonic() + PATIENCE
        while not look():
            if writer and not writer.running:
                raise AssertionError("the client that never stops has stopped")
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE} s for {what}")
            time.sleep(0.05)
