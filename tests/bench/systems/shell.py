"""Two scripts of standard programs: the seeds' own, and the careful pipe that needs no local copy."""

from __future__ import annotations

from pathlib import Path

from ..measure import Command
from .system import System, first_line, in_cache, on_path

AWS = in_cache("aws", "venv-awscli/bin")
CONFIG = """[default]
s3 =
  multipart_chunksize = 50MB
  max_concurrent_requests = 8
"""


class Script(System):
    @classmethod
    def programs(cls) -> list[Path]:
        return [*on_path("bash", "tar", "zstd", "sha256sum"), AWS]

    @classmethod
    def version(cls) -> str:
        return f"{first_line('tar', '--version')}; {first_line('zstd', '--version').strip('* ')}; {first_line(AWS, '--version').split()[0]}"

    def prepare(self) -> None:
        (self.place.state / "aws-config").write_text(CONFIG)

    @property
    def _object(self) -> str:
        return f"s3://{self.place.bucket}/{self.name}/data.tar.zst"

    def _script(self, script: str, **paths: Path) -> Command:
        return self.shell(
            script,
            AWS_ENDPOINT_URL=self.place.endpoint,
            AWS_CONFIG_FILE=str(self.place.state / "aws-config"),
            AWS=str(AWS),
            OBJECT=self._object,
            STATE=str(self.place.state),
            TREE=str(self.place.tree),
            **{name: str(path) for name, path in paths.items()},
        )


class Pipe(Script):
    """Nothing is written locally but the checksum."""

    name, title = "pipe", "shell pipe (zstd -3)"

    def base(self) -> Command:
        return self._script(
            'tar -C "$TREE" -cf - . | zstd -q -3 -c | tee >(sha256sum > "$STATE/sha256") | "$AWS" s3 cp - "$OBJECT"'
        )

    def restore(self, into: Path) -> Command:
        return self._script('"$AWS" s3 cp "$OBJECT" - | zstd -q -dc | tar -C "$INTO" -xf -', INTO=into)

    def verify(self) -> Command:
        return self._script('"$AWS" s3 cp "$OBJECT" - | sha256sum --check --status "$STATE/sha256"')


class SeedsScript(Script):
    """As the first design had it: a local archive at level 19, its checksum, and an upload of 50 MB parts, eight at once."""

    name, title, once = "seeds", "the seeds' script (zstd -19)", True

    def base(self) -> Command:
        return self._script(
            'cd "$STATE"; tar -C "$TREE" -I \'zstd -q -T0 -19\' -cf data.tar.zst .; '
            'sha256sum data.tar.zst > data.tar.zst.sha256; "$AWS" s3 cp --no-progress data.tar.zst "$OBJECT"'
        )

    def restore(self, into: Path) -> Command:
        return self._script(
            'cd "$STATE"; rm -f data.tar.zst; "$AWS" s3 cp --no-progress "$OBJECT" data.tar.zst; '
            "sha256sum --check --quiet data.tar.zst.sha256; tar -I 'zstd -d -T0' -C \"$INTO\" -xf data.tar.zst",
            INTO=into,
        )
