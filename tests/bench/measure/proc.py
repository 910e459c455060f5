"""What processes cost, from /proc. Linux only."""

import os
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def fields(pid):
    """Fields of /proc/PID/stat from the third (state) on, and the name; none if it has ended."""
    try:
        head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return None, None
    return rest.split(), head.partition("(")[2]


def start_time(pid):
    """With the pid it names a process for good; none if it has ended."""
    stat, _ = fields(pid)
    return int(stat[19]) if stat and stat[0] not in "ZX" else None


def children():
    """Who was started by whom, of all processes: to be asked once where many trees are looked at."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat, _ = fields(entry)
            if stat:
                found.setdefault(int(stat[1]), []).append(int(entry))
    return found


def tree(pid, known=None):
    """The process and all that descend from it."""
    known = known or children()
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += known.get(found[-1], [])
    return found


def worker_cpu(pid, known=None):
    """Seconds of a worker's own processes, and of what they started and waited for (the calls of cta-admin)."""
    own = others = 0
    for each in tree(pid, known):
        stat, name = fields(each)
        if stat and name != "cta-admin":
            own += int(stat[11]) + int(stat[12])
            others += int(stat[13]) + int(stat[14])
    return own / TICK, others / TICK


def ended_cpu(pid):
    """Seconds of all that a process started and that has ended since, each rounded down to 10 ms."""
    stat, _ = fields(pid)
    return (int(stat[13]) + int(stat[14])) / TICK


def tree_cpu(pid, known=None):
    """Seconds of all processes of a tree, as precise as the scheduler has it: /proc/PID/stat rounds each one down to 10 ms."""
    total = 0
    for each in tree(pid, known):
        for thread in _threads(each):
            try:
                total += int(Path(f"/proc/{each}/task/{thread}/schedstat").read_text().split()[0])
            except OSError:
                pass
    return total / 1e9


def _threads(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def machine_busy():
    """Seconds that all processors were busy, whoever kept them so."""
    values = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(values) - values[3] - values[4] - values[7]) / TICK


def pss_mib(pid):
    """Proportional memory of a worker's own processes."""
    total = 0
    for each in tree(pid):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            if fields(each)[1] != "cta-admin":
                total += int(text.split("Pss:")[1].split()[0])
        except (OSError, IndexError):
            pass
    return total / 1024


def peak_mib(pid):
    """The most memory a process ever had resident; none if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return None


def timed(argv, environment, output=os.devnull, watch=False):
    """Runs a program: wall seconds, CPU seconds of it and of what it waited for, and, if it is watched, its peak MiB.

    The resource usage of a child begins with the memory of the process it was started from, so the peak is read from /proc while it runs.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    begun = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    ended, peak = 0, 0.0
    while watch and not ended:
        peak = max(peak, peak_mib(pid) or 0.0)
        time.sleep(0.01)
        ended, status, usage = os.wait4(pid, os.WNOHANG)
    if not ended:
        _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - begun
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {code}")
    return {"wall_s": took, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": peak}
