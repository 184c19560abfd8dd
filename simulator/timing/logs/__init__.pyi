from .recorder import TraceRecorder as TraceRecorder
from .steps import read_intervals as read_intervals, read_step_times as read_step_times
from .trace_events import read_trace_events as read_trace_events
