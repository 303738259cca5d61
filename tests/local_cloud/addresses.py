"""What a stable address does: who connects to it reaches the instance that holds it, or nobody.

An Elastic IP, the private address of an interface that was attached later, or a secondary private address. While an
instance holds one, a forwarder listens and passes connections to the engine's port of the holder; when it moves or is
taken away, the listener and all its connections are cut. moto's Elastic IPs are in 127/8, where anybody may listen on
Linux; a private address answers at `reach(address)` there, and only once the guest has configured it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading

from moto.ec2.models import ec2_backends

from .processes import free_port, is_free


class Addresses:
    def __init__(self, cloud, preferred_port: int) -> None:
        self.cloud = cloud
        self.port = preferred_port if is_free("127.0.0.1", preferred_port) else free_port()
        self._network = random.randrange(2, 255)  # several clouds run side by side
        self._listening: dict[str, tuple[str, Forwarder]] = {}
        self._lock, self._loop = threading.Lock(), asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="local-cloud-addresses", daemon=True).start()

    def sync(self) -> None:
        """Make the listeners agree with the associations. Called after every change of either."""
        with self._lock:
            wanted = self._wanted()
            for address, (holder, forwarder) in list(self._listening.items()):
                if wanted.get(address) != holder:
                    self._do(forwarder.close())
                    del self._listening[address]
            for address, holder in wanted.items():
                if address not in self._listening:
                    forwarder = Forwarder(self.cloud.machines[holder])
                    self._do(forwarder.open(address, self.port))
                    self._listening[address] = (holder, forwarder)

    def stop(self) -> None:
        with self._lock:
            for _, forwarder in self._listening.values():
                self._do(forwarder.close())
            self._listening.clear()
        self._do(end_of_connections())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def reach(self, address: str) -> str:
        """Where a client of this machine finds an address of EC2."""
        parts = address.split(".")
        return address if parts[0] == "127" else ".".join(["127", str(self._network), *parts[2:]])

    def _wanted(self) -> dict[str, str]:
        backends = [b for account in list(ec2_backends.values()) for b in list(account.values())]
        elastic = {
            address.public_ip: address.instance.id
            for backend in backends
            for address in backend.addresses
            if address.association_id and address.instance and address.instance.id in self.cloud.machines
        }
        private = {
            self.reach(ip): machine.id
            for backend in backends
            for interface in backend.enis.values()
            for ip in travelling(interface)
            if (machine := self.cloud.machines.get(interface.instance.id)) and ip in machine.configured
        }
        return {**elastic, **private}

    def _do(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


def travelling(interface) -> list[str]:
    """The private addresses that lead to its instance and are not the instance's own."""
    if not interface.instance:
        return []
    own = interface.private_ip_address if interface.device_index == 0 else None
    return [p["PrivateIpAddress"] for p in interface.private_ip_addresses if p["PrivateIpAddress"] != own]


async def end_of_connections() -> None:
    """Their sockets are closed; whatever handles them needs a moment to see it, or the loop would complain of it."""
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(tasks, timeout=2)


class Forwarder:
    def __init__(self, machine) -> None:
        self._machine, self._writers, self._server = machine, set(), None

    async def open(self, address: str, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, address, port)

    async def close(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            # A reset, not an orderly end: a reply that was cut short must not look whole.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", self._machine.engine_port)
        except OSError:  # the engine is down: as a closed port
            self._drop(writer)
            return
        self._writers.add(engine_writer)
        await asyncio.gather(self._pump(reader, engine_writer), self._pump(engine_reader, writer))
        self._drop(writer)
        self._drop(engine_writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()
