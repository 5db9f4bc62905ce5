"""A faithful local exchange, and its faults."""

from harvest.simulator.config import Endpoints, SimulatorConfig
from harvest.simulator.entry import main
from harvest.simulator.fault import FaultScriptError
from harvest.simulator.fault_script import parse_fault
from harvest.simulator.listing import listed_for
from harvest.simulator.process import simulator_process
from harvest.simulator.server import run_venue, serve

__all__ = [
    "Endpoints",
    "FaultScriptError",
    "SimulatorConfig",
    "listed_for",
    "main",
    "parse_fault",
    "run_venue",
    "serve",
    "simulator_process",
]
