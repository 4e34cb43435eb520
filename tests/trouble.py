"""What stands in the log of a node only when it has met an error of ours: whatever others do, it may not."""

from typing import Final

TROUBLE: Final = (
    "Traceback",
    "exception out of",
    "message handler failed",
    "Task exception",
    "fault of moonmesh",
    "never retrieved",
)
