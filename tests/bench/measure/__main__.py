"""Runs the measurements that are asked for, round by round, and reports."""

import argparse
import statistics
import sys
import time
import traceback

import calls
import contest
import latency
import place
import publish
import report
import scan
import startup
import tick

DRAIN = ["serial", "celery:2", "celery:4", "celery:8", "celery:2:16", "dramatiq:2:2", "dramatiq:2:8", "apalis:8", "apalis:64",
         "graphile:8", "graphile:64", "ours:4", "ours:8", "ours:16", "ours:32", "ours:64"]
WAIT = ["serial", "celery:8", "dramatiq:2:8", "apalis:64", "graphile:64", "ours:64"]
LOOK = ["ours:8"]
WORKERS = ["ours:8", "ours:8:2", "ours:8:4", "ours:8:8"]
QUARANTINED = {"BENCH_CTA_POOL": "quarantine", "BENCH_CTA_STATE": "DISABLED"}
# Contest: its contestants, the stage, calls of cta-admin for each task, what the stand-in is told, tasks of those that are slow.
CONTESTS = {
    "drain": (DRAIN, "finish", 1, {}, {}),
    "wait20": (WAIT, "finish", 1, {"BENCH_CTA_WAIT_US": "20000"}, {"serial": 300, "celery:8": 1000}),
    "look3": (LOOK, "quarantine", 3, QUARANTINED, {}),
    "workers": (WORKERS, "finish", 1, {}, {}),
}
OTHERS = ("startup", "scan", "tick", "publish", "latency", "calls")
COLUMNS = ("tasks_per_s", "execs_per_s", "own_us", "exec_us", "postgres_us", "broker_us", "machine_us", "pss_mib", "to_first_tenth_s", "publish_s")
# What may be full: the processors, or the disk that every commit waits for.
RESOURCES = ("machine_busy", "sync_busy", "tasks_per_sync")


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench/run")
    parser.add_argument("--only", action="append", choices=[*CONTESTS, *OTHERS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestant", action="append")
    parser.add_argument("--out", default=str(place.CACHE / "results.json"))
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--tapes", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--due", type=int, default=150_000)
    parser.add_argument("--claims", type=int, default=100)
    return parser.parse_args()


class Bench:
    def __init__(self, options):
        self.options = options
        self.result = {"machine": report.machine(), "options": vars(options), "measurements": {}, "targets": [], "failures": [], "took_s": {}}

    def attempt(self, what, work):
        """A run that fails is told and left out: the others still count."""
        try:
            return work()
        except Exception as error:  # whatever it is, it is in the report
            traceback.print_exc()
            self.result["failures"].append({"what": what, "why": str(error)[-2000:]})
            return None

    def contest(self, name):
        contestants, stage, execs, environment, fewer = CONTESTS[name]
        if self.options.contestant:
            contestants = self.options.contestant
        rounds = {who: [] for who in contestants}
        for number in range(self.options.rounds):
            for who in contestants:
                tasks = min(fewer.get(who, self.options.tasks), self.options.tasks)
                run = self.attempt(f"{name} {who}", lambda: contest.run(who, number, stage, tasks, execs, environment))
                if run:
                    rounds[who].append(run)
                    print(f"{name} round {number + 1} {who}: {run['tasks_per_s']} tasks/s, own {run['own_us']} µs", file=sys.stderr)
        rounds = {who: runs for who, runs in rounds.items() if runs}
        columns = (*COLUMNS, *RESOURCES) if name == "workers" else COLUMNS
        medians = {who: {column: report.median(runs, column) for column in columns} for who, runs in rounds.items()}
        self.result["measurements"][name] = {"rounds": rounds, "medians": medians}
        rows = []
        for who, middle in medians.items():
            speeds = [run["tasks_per_s"] for run in rounds[who]]
            rows.append([who, *middle.values(), f"{min(speeds):.0f}-{max(speeds):.0f}"])
        report.show(f"{name}: medians of {self.options.rounds} rounds, µs are CPU for each task", ("who", *columns, "tasks/s min-max"), rows)
        if name == "workers":
            self.full(medians)
        elif name in ("drain", "wait20"):
            self.contest_targets(name, rounds, medians)

    def contest_targets(self, name, rounds, medians):
        ours = best(medians, "ours")
        if ours is None:
            return
        pairs = {
            "drain": (("celery", 1.7), ("dramatiq", 1.3), ("serial", 1.5), ("apalis", 1.1), ("graphile", 1.1)),
            "wait20": (("serial", 20), ("celery", 3), ("dramatiq", 1.5)),
        }[name]
        for kind, limit in pairs:
            if other := best(medians, kind):
                quotient = report.ratio(rounds, ours, other, "tasks_per_s")
                self.target(f"{name}: tasks/s, {ours} over {other}", quotient, limit)
        if name == "drain" and (celery := best(medians, "celery")):
            quotient = report.ratio(rounds, ours, celery, "own_us")
            self.target(f"{name}: own CPU for each task, {ours} over {celery}", quotient, 0.25, at_least=False)
        if name == "wait20" and "ours:64" in medians:
            self.target("memory (PSS, MiB) of ours:64", medians["ours:64"]["pss_mib"], 20, at_least=False)

    def full(self, medians):
        """Says for each number of processes which resource is full, and what fills it."""
        rows = []
        for who, middle in medians.items():
            parts = {part: middle[f"{part}_us"] for part in ("own", "exec", "postgres", "broker")}
            cores = {part: round(each * middle["tasks_per_s"] / 1e6, 2) for part, each in parts.items()}
            # Starting programs, the disk, and whatever else the machine does: much of it on a quiet one means that we did not see ourselves.
            cores["rest"] = round(middle["machine_us"] * middle["tasks_per_s"] / 1e6 - sum(cores.values()), 2)
            middle["full"] = fullest(middle)
            rows.append((who, middle["tasks_per_s"], *cores.values(), middle["machine_busy"], middle["sync_busy"], middle["full"]))
        header = ("who", "tasks/s", *(f"{part}, processors" for part in cores), "machine busy", "log being synced", "full")
        report.show("workers: what is full", header, rows)

    def target(self, *what, **more):
        self.result["targets"].append(report.judged(*what, **more))

    def rounds(self, name, prepare, run, most=sys.maxsize):
        """Some other measurement: prepared once, run so many times, at most `most`."""
        begun = time.monotonic()
        prepared = self.attempt(f"{name}: preparing", prepare)
        took = round(time.monotonic() - begun, 1)
        runs = []
        for number in range(min(self.options.rounds, most) if prepared else 0):
            figures = self.attempt(f"{name} round {number + 1}", lambda: run(number, prepared))
            if figures:
                runs.append(figures)
                print(f"{name} round {number + 1}", file=sys.stderr)
        self.result["measurements"][name] = {"rounds": runs, "prepare_s": took}
        return runs

    def startup(self):
        runs = self.rounds("startup", startup.prepare, startup.run)
        if not runs:
            return
        middle = {name: report.median(runs, name, "wall_ms") for name in runs[0]}
        cpu = {name: report.median(runs, name, "cpu_ms") for name in runs[0]}
        report.show("startup", ("command", "wall ms", "CPU ms"), [(name, middle[name], cpu[name]) for name in middle])
        for program in ("producer", "worker", "manager"):
            self.target(f"{program} --version, ms", middle[f"{program} --version"], 5, at_least=False)
        for listing in ("manager ls", "manager ls --jsonl"):
            quotient = statistics.median(run[listing]["wall_ms"] / run["psql COPY"]["wall_ms"] for run in runs)
            self.target(f"{listing} of 10,000 rows over psql COPY", quotient, 2, at_least=False)
            everything = statistics.median(run[listing]["wall_ms"] / run["psql COPY, all"]["wall_ms"] for run in runs)
            print(f"{listing} over psql COPY of all that it is told from: {everything:.2f}")

    def scan(self):
        runs = self.rounds("scan", lambda: scan.prepare(self.options.tapes), scan.run)
        if not runs:
            return
        rows = [
            (who, *(report.median(runs, who, figure) for figure in ("wall_s", "cpu_s", "mb_per_s", "peak_mib"))) for who in runs[0]
        ]
        report.show(f"scan of {self.options.tapes} tapes", ("who", "wall s", "CPU s", "MB/s", "peak MiB"), rows)
        over = lambda who: statistics.median(run[who]["wall_s"] / run["ours"]["wall_s"] for run in runs)
        self.target("scan: speed, ours over Python's json", over("python"), 10)
        self.target("scan: speed, ours over the probe", over("probe"), 0.9)
        self.target("scan: peak MiB", max(run["ours"]["peak_mib"] for run in runs), 16, at_least=False)

    def tick(self):
        runs = self.rounds("tick", lambda: tick.prepare(self.options.rows, self.options.events), tick.run)
        if not runs:
            return
        rows = []
        for name in runs[0]:
            middle = report.median(runs, name, "database_ms")
            each = [report.median(runs, name, "delivery", figure) for figure in ("database_ms_each", "statements_ms_each", "wal_kib_each")]
            together = report.median(runs, name, "together", "statements_ms_each")
            wall = report.median(runs, name, "wall_ms")
            scans = {scan for run in runs for part in (run[name], run[name]["delivery"], run[name]["together"]) for scan in part["sequential_scans_ms"]}
            rows.append((name, middle, wall, *each, together, len(scans)))
            self.target(f"tick, {name}: database ms", middle, 50, at_least=False)
            self.target(f"tick, {name}: sequential scans of large tables", len(scans), 0, at_least=False)
        header = (
            "table", "database ms", "wall ms", "database ms a delivery", "but for commits", "log, KiB a delivery", f"but for commits, {tick.TOGETHER} at a time",
            "sequential scans",
        )
        report.show(f"tick, {tick.DUE} due", header, rows)
        self.flat(runs)

    def flat(self, runs):
        """What a delivery costs must not grow with the table: the largest over the smallest, all of whose rows are on their way."""
        smallest, largest = list(runs[0])[0], list(runs[0])[-2]
        if smallest == largest:
            return
        for part, how in (("delivery", "one at a time"), ("together", f"{tick.TOGETHER} at a time")):
            # Commits wait for the disk, and whatever else writes to it: they are shown, not judged.
            quotient = statistics.median(run[largest][part]["statements_ms_each"] / run[smallest][part]["statements_ms_each"] for run in runs)
            what = f"claim and record, {how}: database time but for commits"
            self.target(f"{what}, {largest} over {smallest}", quotient, 1.2, at_least=False)

    def publish(self):
        runs = self.rounds("publish", lambda: self.options.due, publish.run, publish.ROUNDS)
        if not runs:
            return
        figures = ("rows", "rows_per_s", "wall_s", "own_us", "postgres_us", "broker_us", "peak_mib")
        middle = {who: [report.median(runs, who, figure) for figure in figures] for who in runs[0]}
        title = f"publish: {publish.CHANNELS} channels, µs are CPU for each row"
        report.show(title, ("who", *figures), [(who, *row) for who, row in middle.items()])
        quotient = statistics.median(run["all"]["rows_per_s"] / run["bare"]["rows_per_s"] for run in runs)
        self.target("publish: rows/s, ours over a bare publisher", quotient, 0.9)
        grown = statistics.median(run["all"]["peak_mib"] - run["tenth"]["peak_mib"] for run in runs)
        self.target("publish: peak MiB", max(run["all"]["peak_mib"] for run in runs), 64, at_least=False)
        self.target("publish: peak MiB, all over a tenth of the rows: more by", grown, 32, at_least=False)

    def latency(self):
        runs = self.rounds("latency", lambda: self.options.claims, latency.run)
        if not runs:
            return
        rows = []
        for figure, what in (("published_ms", "published to claimed"), ("requeued_ms", "requeued to claimed, a tick in between")):
            values = [value for run in runs for value in run[figure]]
            middle, late = statistics.median(values), latency.percentile(values, 0.99)
            rows.append((what, len(values), round(middle, 2), round(late, 2), round(max(values), 2)))
            if figure == "published_ms":
                self.target(f"latency: {what}, median ms", middle, 10, at_least=False)
                self.target(f"latency: {what}, 99th percentile ms", late, 100, at_least=False)
        report.show(f"latency: one tape every {latency.INTERVAL} s, ms", ("from", "tapes", "median", "99 %", "longest"), rows)

    def calls(self):
        # Counts do not vary from round to round: one is enough.
        result = self.attempt("calls", lambda: calls.run(0, None))
        if not result:
            return
        sizes = [calls.size(name, part) for name, part in result.items()]
        rows = calls.rows(result)
        rows.append(("tick", "(ticks)", *(part["ticks"] for part in result.values()), ""))
        report.show("calls of cta-admin in all", ("who", "call", *sizes, f"the least for {calls.TAPES[-1]}"), rows)
        most = result[str(calls.TAPES[-1])]
        least = sum(len(made) for made in calls.MINIMUM.values())
        parts = {name: {"per_tape": calls.per_tape(part), "above_the_least": calls.above(part)} for name, part in result.items()}
        self.result["measurements"]["calls"] = {"counts": result, "least_per_tape": least, "summary": parts}
        rows = [(size, part["per_tape"], *part["above_the_least"].values()) for size, part in zip(sizes, parts.values())]
        report.show(f"calls for each tape, the least is {least}, and how many are above it", ("tapes", "calls", *calls.above(most)), rows)
        self.target(f"calls of cta-admin for a tape, of {calls.TAPES[-1]}", calls.per_tape(most), least, at_least=False)
        for size, part in zip(sizes, result.values()):
            polls = sum(part["calls"]["tick"].values()) / part["ticks"]
            self.target(f"calls of cta-admin for a tick, {size}", polls, 1, at_least=False)

    def all(self):
        try:
            for name in self.options.only or [*CONTESTS, *OTHERS]:
                begun = time.monotonic()
                if name in CONTESTS:
                    self.contest(name)
                else:
                    getattr(self, name)()
                self.result["took_s"][name] = round(time.monotonic() - begun, 1)
                # What was measured is kept, whatever comes after it.
                report.save(self.options.out, self.result)
        finally:
            report.save(self.options.out, self.result)
        report.show_targets(self.result["targets"])
        print(f"\nall figures: {self.options.out}")
        for failure in self.result["failures"]:
            print(f"failed: {failure['what']}: {failure['why']}", file=sys.stderr)
        return 1 if self.result["failures"] else 0


def fullest(middle):
    """What throughput was limited by: nine tenths of the processors, or of the time in which the log can be synced."""
    if middle["machine_busy"] >= 0.9:
        return "processors"
    return "disk (log)" if middle["sync_busy"] >= 0.9 else "nothing"


def best(medians, kind):
    """The fastest setting of a kind."""
    settings = [who for who in medians if who.split(":")[0] == kind]
    return max(settings, key=lambda who: medians[who]["tasks_per_s"], default=None)


sys.exit(Bench(arguments()).all())
