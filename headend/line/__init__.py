"""Lines: the only home of sockets and ports. A line moves bytes for one conversation at a time; it knows no protocol.

`Line.run` drives a conversation (see `headend.conversation`): it writes, waits, feeds every chunk straight into the
generator, throws `NoAnswer` at the timeout and `LineDown` when the port closes. Building a Line opens nothing; the
port opens with the first conversation and again after it was lost.
"""

from headend.line.line import Line, Links, Opener, Tap
from headend.line.links import Link
from headend.line.listener import Listener
from headend.line.stats import LineStats, MeterCost

__all__ = ["Line", "LineStats", "Link", "Links", "Listener", "MeterCost", "Opener", "Tap"]
