"""The durable engine behind a narrow port: `Engine` is the port, `dbos_engine` the adapter."""

from counterplay.engine.port import (
    Engine,
    EngineInterrupt,
    Recorder,
    ReplayedFailure,
    SegmentBody,
    SegmentStatus,
)

__all__ = ["Engine", "EngineInterrupt", "Recorder", "ReplayedFailure", "SegmentBody", "SegmentStatus"]
