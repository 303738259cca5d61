"""The systems that are compared. Each says how it is told to do a job, and nothing about how that is measured."""

from .perennial import Perennial
from .rclone import Rclone
from .restic import Restic
from .s5cmd import S5cmd
from .shell import Pipe, SeedsScript
from .system import Place, System

__all__ = ["Perennial", "Pipe", "Place", "Rclone", "Restic", "S5cmd", "SeedsScript", "System"]
