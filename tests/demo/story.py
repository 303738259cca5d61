"""The story that the demo tells, and what must be so at each step.

What differs from what was promised is collected in `differences` and told at the end; what never comes ends the story
with an AssertionError.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from clients import CLIENTS, Client, Row, connect
from local_cloud import LocalCloud
from local_cloud.cloud import REPOSITORY, built

from .console import Console
from .corpus import Document
from .questions import Question
from .table import Replacement, table
from .user import Findings, User
from .watch import Watch, outcome, seconds
from .writer import Reader, Writer

COLLECTION = "Docstring"

FUNCTIONS = {
    "LifecycleFunction": "lifecycle",
    "BackupFunction": "backup",
    "VerifyFunction": "verify",
    "AlertFunction": "alert",
}
LATE_ROWS = 25  # written between the backup and the death
NOTES = 100  # of the client that never stops, before and again after the planned replacement
PATIENCE = 180  # seconds for anything that the cloud does

Corpus = Future[list[tuple[Document, Sequence[float]]]]  # without vectors where the engine does not search them


class Story:
    def __init__(
        self, cloud: LocalCloud, console: Console, corpus: Corpus, questions: list[Question], endpoint: str | None
    ) -> None:
        self.cloud, self.console, self.corpus, self.questions = cloud, console, corpus, questions
        self.endpoint, self.engine = endpoint, cloud.engine.name
        self.title, self.kind = self.engine.title(), CLIENTS[self.engine]
        self.differences: list[str] = []
        self.died, self.planned = Replacement(), Replacement()

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
        self.console.chapter("Deploy the database's side and Perennial, from the templates in infra/")
        self.database = database = self.cloud.create_database_stack(endpoint=self.endpoint)
        made = f"bucket {database.bucket}, {database.kind_of_address} {database.address}, "
        made += f"Auto Scaling group {database.group} of one"
        self.console.line("group.yaml", made)
        programs = {function: built(program) for function, program in FUNCTIONS.items()}
        self.cloud.deploy(REPOSITORY / "infra" / "template.yaml", database.parameters(), programs)
        made = f"functions {', '.join(FUNCTIONS.values())}; rules, schedules, roles, queues, SSM document"
        self.console.line("template.yaml", made)

    def first_launch(self) -> None:
        self.console.chapter("First launch: the repository is empty, which the settings allow")
        began = time.monotonic()
        self.database.set_capacity(1)
        self.instance = self.watch.until("in service", since=began, limit=PATIENCE).about
        self.user = User(self.connect, self.questions, self.console)
        self.wait_for("an answer through the address", self.user.client.is_ready)
        self.user.tell(f"is answered at {self.database.url}, the {self.database.kind_of_address}")
        if self.kind.searches:
            self.user.client.create_collection(len(self.questions[0].asked))
            self.user.tell(f"made the collection {COLLECTION}")

    def connect(self) -> Client:
        return connect(self.engine, self.database.url, self.database.api_key, COLLECTION)

    def load(self) -> None:
        self.console.chapter("Load the docstrings of Python's standard library, through the stable address")
        rows = [Row(d.id, d.name, d.text, array("f", vector)) for d, vector in self.corpus.result()]
        self.dimensions = len(rows[0].vector)
        self.late = rows[:: len(rows) // LATE_ROWS][:LATE_ROWS]
        kept_back = {row.id for row in self.late}
        self.user.write([row for row in rows if row.id not in kept_back])
        count = self.user.client.count()
        what = "a text and its embedding" if self.kind.searches else "a name and a text"
        self.user.tell(f"wrote {len(self.user.acknowledged)} rows, each {what}; {self.title} counts {count}")
        self.same(f"rows that {self.title} counts", len(self.user.acknowledged), count)

    def ask(self) -> None:
        self.console.chapter("Ask by meaning" if self.kind.searches else "Ask by name")
        self.user.ask()
        self.user.show()

    def back_up(self) -> None:
        self.console.chapter("The backup schedule fires, then the verification's")
        began = time.monotonic()
        self.cloud.fire(f"perennial-{self.database.name}-backup")
        result = self.result_of(lambda run: run.startswith("backup-"), began)
        self.measure_backup(self.died, result)
        self.verdict(result["backup_id"], began)  # because a manifest appeared
        fired = time.monotonic()
        self.cloud.fire(f"perennial-{self.database.name}-verify")
        self.verdict(result["backup_id"], fired)
        self.backed_up = dict(self.user.acknowledged)
        self.same("objects in the backup", len(self.backed_up) + self.kind.bookkeeping, result["objects"])

    def write_more(self) -> None:
        self.console.chapter(f"Write {LATE_ROWS} rows more, which are in no backup yet")
        self.user.write(self.late)
        self.user.tell(f"{self.title} counts {self.user.client.count()} rows")
        self.console.plain(
            f"  An unplanned loss will lose exactly these {LATE_ROWS}: the journal that saves them is to come."
        )

    def hardware_dies(self) -> None:
        self.console.chapter("The hardware dies. Nobody does anything")
        began = time.monotonic()
        self.cloud.kill(self.instance)
        self.console.line("hardware", f"{self.instance} is dead: its processes and its disk are gone")
        self.died.death_to_serving = self.replaced(began, self.died)
        found = self.look(self.backed_up, self.died)
        self.died.lost_after_backup = len(self.user.acknowledged.keys() - found.rows.keys())
        self.same("rows lost that were written after the backup", LATE_ROWS, self.died.lost_after_backup)
        self.console.plain("", "  The e-mails that a person gets:")
        for subject in ("lost without a final backup", "restored and serving"):
            self.show_mail(subject)

    def planned_replacement(self) -> None:
        self.console.chapter("A planned replacement, while a client never stops writing")
        self.user.write(self.late)
        self.user.tell(f"wrote the {LATE_ROWS} lost rows again, as the first e-mail says")
        self.user.ask()
        with (
            Writer(self.connect(), self.dimensions, self.user.tell) as writer,
            Reader(self.connect(), self.questions[0]) as reader,
        ):
            self.notes(writer, NOTES)
            self.terminate_through_the_group()
            self.notes(writer, len(writer.acknowledged) + NOTES)
        self.user.tell(f"stopped after {len(writer.acknowledged)} acknowledged notes")
        self.planned.writes_refused, self.planned.reads_refused = writer.longest_refusal, reader.longest_refusal
        self.user.acknowledged.update(writer.acknowledged)
        self.look(self.user.acknowledged, self.planned)

    def terminate_through_the_group(self) -> None:
        began = time.monotonic()
        self.console.line("operator", f"terminates {self.instance} through its group")
        self.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=self.instance, ShouldDecrementDesiredCapacity=False
        )
        self.measure_backup(self.planned, self.result_of(lambda run: run.startswith("final-"), began))
        self.replaced(began, self.planned)

    def close(self) -> None:
        self.console.chapter("What was seen")
        self.nothing_unwanted()
        self.console.plain("", *("  " + line for line in table(self.died, self.planned)))
        self.console.plain(
            "",
            "  EC2's own delays are cut short here, to about a second. On AWS add what Auto Scaling takes to notice (about a",
            "  minute) and what an instance takes to boot and to register with SSM (one to three).",
        )

    # ---- parts of chapters -------------------------------------------------------------------------------------------

    def replaced(self, began: float, measured: Replacement) -> float:
        """Waits until another instance serves. Seconds from `began` to an answer through the address."""
        old = self.instance
        restored = self.result_of(lambda run: run.startswith("restore-") and old not in run, began)
        measured.restore = seconds(restored)
        self.user.connect()
        self.wait_for("an answer through the address", self.user.is_answered)
        serving = time.monotonic() - began
        self.user.tell(f"{self.database.url} answers again")
        self.instance = self.watch.until("in service", lambda new: new != old, since=began, limit=PATIENCE).about
        self.watch.until("mail", lambda subject: "restored and serving" in subject, since=began, limit=PATIENCE)
        self.same("holder of the address", self.instance, self.database.holder())
        return serving

    def look(self, expected: dict[str, Row], measured: Replacement) -> Findings:
        found = self.user.look(expected)
        measured.rows_before, measured.rows_after = len(self.user.acknowledged), len(found.rows)
        measured.lost_otherwise = len(found.missing)
        measured.same_answers = f"{found.same_answers} of {len(self.questions)}"
        self.same("acknowledged rows lost", 0, len(found.missing))
        self.same("rows that came back changed", 0, len(found.changed))
        self.same("rows that nobody wrote", 0, len(found.rows.keys() - self.user.acknowledged.keys()))
        self.same("questions answered as before", len(self.questions), found.same_answers)
        return found

    def nothing_unwanted(self) -> None:
        """What must not have happened while all went well."""
        invocations = self.cloud.invocations
        ticks = sum(i.function.endswith("-lifecycle") and "tick" in str(i.event) for i in invocations)
        counts = f"{len(invocations)} invocations ({ticks} of them ticks), {len(self.cloud.mail)} e-mails"
        unwanted = {
            "failed invocations": [f"{i.function}: {i.response}" for i in invocations if i.failed],
            "events that reached nobody": self.cloud.delivery.lost,
            "critical e-mails": [mail.subject for mail in self.cloud.mail if "CRITICAL" in (mail.subject or "")],
            "calls that IAM would refuse": [f"{d['caller']} {d['action']} {d['resource']}" for d in self.cloud.denied],
        }
        for what, seen in unwanted.items():
            self.same(what, [], seen)
        self.console.line("cloud", counts)
        self.console.list([f"{what}: {len(seen) or 'none'}" for what, seen in unwanted.items()])

    def result_of(self, run: Callable[[str], bool], since: float) -> dict:
        """How the next such run ends."""
        found = self.watch.until("result", run, since=since, limit=PATIENCE).details
        if not found["ok"]:
            raise AssertionError(outcome(found))
        return found

    @staticmethod
    def measure_backup(measured: Replacement, result: dict) -> None:
        measured.backup, measured.backup_bytes = seconds(result), result["size_bytes"]

    def verdict(self, backup: str, since: float) -> None:
        report = self.watch.until("verified", lambda about: about == backup, since=since, limit=PATIENCE).details
        self.same(f"verdict on {backup}", "good", report["verdict"])

    def show_mail(self, subject: str) -> None:
        mail = next(m for m in self.cloud.mail if subject in (m.subject or ""))
        self.console.block(f"To: {mail.to}\nSubject: {mail.subject}\n\n{mail.body}")

    def notes(self, writer: Writer, number: int) -> None:
        self.wait_for(f"{number} notes", lambda: len(writer.acknowledged) >= number or not writer.running)
        if not writer.running:
            raise AssertionError("the client that never stops has stopped")

    # ---- comparing and waiting ---------------------------------------------------------------------------------------

    def same(self, what: str, expected: object, seen: object) -> None:
        if expected != seen:
            self.differences.append(f"{what}: expected {expected!r}, seen {seen!r}")
            self.console.line("DIFFERS", self.differences[-1])

    @staticmethod
    def wait_for(what: str, look: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE} s for {what}, which did not come")
            time.sleep(0.05)
