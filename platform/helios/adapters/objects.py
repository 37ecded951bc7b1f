"""Object stores. A local cell's bucket is a folder."""

import shutil
from pathlib import Path


class LocalObjectStore:
    """A folder as a bucket; keys are paths below it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def uri(self, key: str) -> str:
        """Return where a key lives. Raises `ValueError` for a key that leads out of the bucket."""
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root):
            raise ValueError(f"key {key!r} leads out of the bucket")
        return str(path)

    def free_bytes(self) -> int | None:
        """Space left on the bucket's file system."""
        self.root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.root).free
