"""LocalCloud: one account in one region, in this process. What it stands in for, and how it differs from AWS, is in
README.md.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # read when moto is imported; spares 1177 images

import boto3
from botocore.config import Config
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import SQSBackend, sqs_backends
from werkzeug.serving import make_server

from . import autoscaling, ec2, events, functions, interfaces, mail, patching, queues, ssm
from .account import ACCOUNT, REGION
from .addresses import Addresses
from .clock import Clock
from .database import Database, create_database
from .delivery import Delivery
from .deploy import Stack, deploy
from .engines import ENGINES
from .events import EventBus
from .functions import Functions
from .machine import Machine
from .metrics import Metrics
from .permissions import Permissions
from .processes import Reaper
from .s3_faults import S3Faults
from .s3_proxy import S3Proxy
from .s3_server import S3Server
from .schedules import Schedules
from .timing import Timing

CACHE = Path(
    os.environ.get("PERENNIAL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perennial"
)
REPOSITORY = Path(__file__).resolve().parents[2]
log = logging.getLogger("local_cloud")


def built(program: str, profile: str = "debug") -> Path:
    """Where cargo puts a program of this workspace."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target") / profile / program


class LocalCloud:
    """Use as a context manager. One at a time in a process (moto's state is the process's); any number of processes
    side by side.

    workdir: where instances, objects and logs live; a temporary folder when None. engine: which database the
    instances run. programs: what they find in their PATH, instead of the agent and the engine.
    """

    MARKER = "LOCAL_CLOUD"
    account, region = ACCOUNT, REGION

    def __init__(
        self,
        workdir: str | Path | None = None,
        *,
        engine: str = "weaviate",
        timing: Timing | None = None,
        programs: Sequence[Path] | None = None,
        endpoint_port: int | None = None,
        s3_program: Path = CACHE / "bin" / "versitygw",
    ) -> None:
        self.id, self.timing = uuid.uuid4().hex, timing or Timing()
        self._owns_workdir = workdir is None
        self.workdir = Path(workdir or tempfile.mkdtemp(prefix="local-cloud-")).resolve()
        self.logs = self.workdir / "logs"
        self.engine = ENGINES[engine]
        usual = [built("perennial"), *(CACHE / "bin" / name for name in self.engine.programs)]
        self.programs = usual if programs is None else list(programs)
        self._endpoint_port, self._s3_program = endpoint_port or self.engine.port, s3_program
        self.lock = threading.RLock()
        self._clients, self._clients_lock = {}, threading.Lock()
        # What a test looks at.
        self.calls: list[dict] = []
        self.mail: list[mail.Mail] = []
        self.metrics, self.activities = Metrics(), []
        self.machines: dict[str, Machine] = {}
        self.permissions = Permissions(self)
        # What a test turns.
        self.api_faults, self.s3_faults = patching.ApiFaults(), S3Faults()
        self.no_capacity = False  # launches fail with InsufficientInstanceCapacity
        self.instance_env: dict[str, str] = {}  # for instances that boot from now on
        self.instance_role: str | None = None  # a role's name; None: instances may do everything
        self.launching, self.stopping = None, False
        self._timers: list[tuple[float, Callable, tuple]] = []

    # ---- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> LocalCloud:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> LocalCloud:
        for folder in ("instances", "logs"):
            (self.workdir / folder).mkdir(parents=True, exist_ok=True)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        moto_api_backend.reset()
        self._reaper = Reaper(self.MARKER, self.id, self.workdir if self._owns_workdir else None)
        try:
            self.s3 = S3Server(
                self._s3_program,
                self.workdir / "s3",
                self.logs / "s3.log",
                {self.MARKER: self.id, "PATH": os.environ["PATH"]},
            )
            self.s3_proxy, self.clock, self.bus = S3Proxy(self), Clock(), EventBus(self)
            self.delivery, self.functions, self.schedules = Delivery(self), Functions(self), Schedules(self)
            self.addresses = Addresses(self, self._endpoint_port)
            self.patches = patching.Patches()
            for part in (patching, ec2, interfaces, autoscaling, ssm, events, functions, mail):
                part.install(self)
            self._serve()
        except BaseException:
            self._reaper.stop()
            raise
        self.clock.every(self.timing.tick, self._tick)
        self.clock.every(self.timing.tick, self.schedules.tick)
        self.clock.every(self.timing.tick, lambda: queues.poll(self))
        return self

    def stop(self) -> None:
        self.stopping = True
        self.clock.stop()
        self.s3_faults.clear()
        with self.lock:
            for machine in self.machines.values():
                machine.power_off()
        self.functions.stop()
        self.addresses.stop()
        self._server.shutdown()
        self._server.server_close()
        self.s3_proxy.stop()
        self.s3.stop()
        self.patches.undo()
        self._reaper.stop()
        if self._owns_workdir:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def _serve(self) -> None:
        self._server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="local-cloud-api", daemon=True).start()

    def _tick(self) -> None:
        """What time does to instances and groups."""
        with self.lock:
            now = time.monotonic()
            due = [timer for timer in self._timers if timer[0] <= now]
            self._timers = [timer for timer in self._timers if timer[0] > now]
            for _, fn, args in due:
                fn(*args)
            autoscaling.tick(self)

    def later(self, delay: float, fn: Callable, *args: object) -> None:
        """On a tick, under the lock."""
        self._timers.append((time.monotonic() + delay, fn, args))

    # ---- clients -----------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def client(self, service: str, **config: object):
        """A boto3 client that does not retry by itself (retries would hide doubled effects)."""
        key = (service, *sorted(config.items()))
        with self._clients_lock:  # making one takes long, and is not safe on several threads
            if key not in self._clients:
                self._clients[key] = self._new_client(service, config)
            return self._clients[key]

    def _new_client(self, service: str, config: dict):
        s3 = {"s3": {"addressing_style": "path"}} if service == "s3" else {}
        options = {
            "retries": {"total_max_attempts": 1},
            "read_timeout": 900,
            "max_pool_connections": 50,
            **s3,
            **config,
        }
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.s3_proxy.url if service == "s3" else self.url,
            aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
            config=Config(**options),
        )

    def client_environment(self, caller: str = "") -> dict[str, str]:
        """What a program needs in its environment to use this cloud; `caller` is how `calls` names it."""
        return {
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_S3": self.s3_proxy.url,
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            **({"AWS_SDK_UA_APP_ID": caller} if caller else {}),
        }

    @staticmethod
    def queue_backend() -> SQSBackend:
        return sqs_backends[ACCOUNT][REGION]

    # ---- stacks ------------------------------------------------------------------------------------------------------

    def deploy(
        self,
        template: str | Path,
        parameters: Mapping[str, str] | None = None,
        binaries: Mapping[str, str | Path] | None = None,
        stack: str = "perennial",
        user_data: str | None = None,
    ) -> Stack:
        """Create a template's resources. `binaries` are the programs of its functions by logical id; `user_data`
        replaces that of launch templates (the real one starts containers).
        """
        programs = {name: Path(program) for name, program in (binaries or {}).items()}
        return deploy(self, Path(template), dict(parameters or {}), programs, stack, user_data)

    def create_database_stack(self, name: str = "docs", **options: object) -> Database:
        """What infra/template.yaml expects to find: see database.create_database."""
        return create_database(self, name, **options)

    # ---- what happens to instances -----------------------------------------------------------------------------------

    def machine(self, instance_id: str) -> Machine:
        return self.machines[instance_id]

    def kill(self, instance_id: str) -> None:
        """The hardware dies: terminated at once, processes and disks gone. Its group notices at the next check."""
        with self.lock:
            instance = self.machines[instance_id].instance
            instance.terminate()
            ec2.finish_shutdown(self, instance)

    def agent_down(self, instance_id: str) -> None:
        """The SSM agent stops answering; before it registered, it never does."""
        self.machines[instance_id].agent_runs = False

    def agent_up(self, instance_id: str) -> None:
        self.machines[instance_id].agent_runs = True

    # ---- events, schedules, functions: the short names ---------------------------------------------------------------

    @property
    def events(self) -> list[dict]:
        return self.bus.seen

    def events_named(self, detail_type: str) -> list[dict]:
        return [event for event in self.events if event["detail-type"] == detail_type]

    @property
    def invocations(self) -> list:
        return self.functions.invocations

    @property
    def denied(self) -> list[dict]:
        """What the roles of functions and instances would not have allowed on AWS."""
        return self.permissions.denied

    def hold_events(self, match: events.Match = ".*"):
        return self.bus.hold(match)

    def fire(self, schedule: str) -> None:
        self.schedules.fire(schedule)

    def group_members(self, group: str) -> dict[str, str]:
        """Instance id -> lifecycle state."""
        found = self.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])[
            "AutoScalingGroups"
        ]
        return {i["InstanceId"]: i["LifecycleState"] for i in found[0]["Instances"]} if found else {}
