"""The report, for people and for programs."""

import statistics

from . import disk
from .trend import growth

AGE = (14, 20)  # s: the age at which short lives are compared


def report(soak):
    samples, server, load = soak.samples, soak.server, soak.load
    commands = {}
    for ran in soak.commands:
        commands.setdefault(ran["command"], []).append(ran)
    return {
        "verdict": "violated" if soak.violations else "fine",
        "violations": soak.violations,
        "seed": soak.options.seed,
        "minutes": soak.options.minutes,
        "events": soak.expected,
        "acknowledged": len(load.acknowledged),
        "doubtful": len(load.doubtful),
        "unanswered_requests": load.unanswered,
        "lives": server.life,
        "down_seconds": sum(up - down for down, up in server.downs if up is not None),
        "start_seconds": three(server.starts),
        "rate_asked": soak.options.rate,
        "long_life": soak.trends,
        "long_life_rate": rate(samples),
        "peak_rss_kib": max((sample["vmhwm"] for sample in samples), default=0),
        "peak_files": max((sample["files"] for sample in samples), default=0),
        "peak_sockets": max((sample["sockets"] for sample in samples), default=0),
        "peak_threads": max((sample["threads"] for sample in samples), default=0),
        "at_the_same_age": young(samples),
        "processor": processor(samples),
        "commands": {name: {"runs": len(runs), "undecided": sum(run["code"] == 2 for run in runs),
                            "seconds": three([run["seconds"] for run in runs]), "cpu_seconds": three([run["cpu"] for run in runs])} for name, runs in commands.items()},
        "disk": {part: {"bytes": size, "on_disk": blocks, "files": files, "per_event": size / max(1, soak.expected),
                        "halves": halves(samples, part), "most": max((s["disk"].get(part, [0])[0] for s in samples), default=0)}
                 for part, (size, blocks, files) in sorted(soak.disk.items(), key=lambda item: -item[1][0])},
        "stopped": {part: size for part, (size, *_) in soak.stopped.items()},
        "tables": soak.tables,
        "log": log_lines(soak.log),
    }


def three(figures):
    """First, median and last."""
    return [figures[0], statistics.median(figures), figures[-1]] if figures else []


def young(samples):
    """Anonymous memory of each short life at one age, over all lives: whether a restart on more data needs more."""
    first = {}
    for sample in samples:
        if AGE[0] <= sample["age"] <= AGE[1]:
            first.setdefault(sample["life"], (sample["t"], sample["rssanon"]))
    return growth(list(first.values()))


def rate(samples):
    """Events a second of the long life: well below what was asked for, the machine was too busy for memory to be held to equal load."""
    life = [sample for sample in samples if sample["life"] == samples[-1]["life"]]
    return (life[-1]["events"] - life[0]["events"]) / max(1, life[-1]["t"] - life[0]["t"]) if life else 0


def processor(samples):
    """By sixths of the long life: events a second, which a busy machine makes fewer than were asked for; the processor's ms per event of
    the whole server, and per commit of its compactor's thread; how many commits and Parquet files there were."""
    if not samples:
        return []
    life = [sample for sample in samples if sample["life"] == samples[-1]["life"]]
    step, found = len(life) // 6, []
    for part in range(6 if step > 1 else 0):
        a, b = life[part * step], life[min((part + 1) * step, len(life) - 1)]
        commits, files = ([end["disk"].get(kind, [0, 0, 0])[2] for end in (a, b)] for kind in ("commit log", "parquet"))
        found.append({"commits": commits, "files": files, "events_per_second": (b["events"] - a["events"]) / max(1, b["t"] - a["t"]),
                      "server_ms_per_event": 1000 * (b["cpu"] - a["cpu"]) / max(1, b["events"] - a["events"]),
                      "compactor_ms_per_commit": 1000 * (b["compactor_cpu"] - a["compactor_cpu"]) / max(1, commits[1] - commits[0])})
    return found


def halves(samples, part):
    """Bytes per event in the first and in the second half of the time."""
    if len(samples) < 3:
        return None
    at = [(sample["events"], sample["disk"].get(part, [0])[0]) for sample in (samples[0], samples[len(samples) // 2], samples[-1])]
    return [(b[1] - a[1]) / max(1, b[0] - a[0]) for a, b in zip(at, at[1:])]


def log_lines(path):
    """Bytes of the server's log, and its lines by level."""
    found = {"bytes": 0, "lines": {}}
    with open(path, errors="replace") as log:
        for line in log:
            found["bytes"] += len(line)
            level = next((level for level in ("ERROR", "WARN", "INFO", "DEBUG") if level in line[:60]), "other")
            found["lines"][level] = found["lines"].get(level, 0) + 1
    return found


def table(report):
    """The report as text."""
    said = []
    say = said.append

    def gain(found, unit, by=1):
        if found is None:
            return "too few samples"
        return (f"{found['mean'] / by:.1f} {unit} ({found['least'] / by:.1f} to {found['most'] / by:.1f}), "
                f"{found['per_minute'] / by:+.2f} a minute, {found['samples']} samples")

    say(f"{report['verdict']}: seed {report['seed']}, {report['minutes']:g} minutes, {report['lives']} lives, {report['events']} events "
        f"({report['acknowledged']} acknowledged, {report['doubtful']} in doubt, {report['unanswered_requests']} requests without an answer)")
    for violation in report["violations"]:
        say(f"  VIOLATION {violation}")
    starts = report["start_seconds"]
    say(f"starts: first {starts[0]:.2f} s, median {starts[1]:.2f} s, last {starts[2]:.2f} s; down {report['down_seconds']:.0f} s in all")
    say(f"long life, at {report['long_life_rate']:.0f} events a second ({report['rate_asked']:g} were asked for), after its warm-up:")
    say(f"  memory   {gain(report['long_life']['rssanon'], 'MiB', 1024)}")
    say(f"  files    {gain(report['long_life']['files'], 'open')}")
    say(f"  threads  {gain(report['long_life']['threads'], '')}")
    say(f"peaks of all lives: {report['peak_rss_kib'] / 1024:.1f} MiB resident, {report['peak_files']} files, "
        f"{report['peak_sockets']} sockets, {report['peak_threads']} threads")
    say(f"memory of each life at {AGE[0]} to {AGE[1]} s: {gain(report['at_the_same_age'], 'MiB', 1024)}")
    say("by sixths of the long life: events a second; processor time of the server per event, of its compactor's thread per commit; "
        "commits so far; Parquet files")
    for part in report["processor"]:
        say(f"  {part['events_per_second']:.0f}/s; {part['server_ms_per_event']:.2f} ms; {part['compactor_ms_per_commit']:.0f} ms; {part['commits'][0]} to {part['commits'][1]}; "
            f"{part['files'][0]} to {part['files'][1]}")
    say("commands: runs, undecided (the server was killed under them); seconds, of the processor in brackets: first, median, last")
    for name, ran in report["commands"].items():
        times = ", ".join(f"{seconds:.2f} ({cpu:.2f})" for seconds, cpu in zip(ran["seconds"], ran["cpu_seconds"]))
        say(f"  recount {name}: {ran['runs']}, {ran['undecided']}; {times}")
    say(f"{'part':14} {'bytes':>12} {'on disk':>12} {'files':>6} {'B/event':>9} {'1st half':>9} {'2nd half':>9} {'most':>12}  what it is")
    for part, found in report["disk"].items():
        first, second = found["halves"] or (0, 0)
        say(f"{part:14} {found['bytes']:12} {found['on_disk']:12} {found['files']:6} {found['per_event']:9.1f} {first:9.1f} {second:9.1f} "
            f"{found['most']:12}  {disk.EXPLAINED.get(part, '')}")
    for name, tables in report["tables"].items():
        for table_name, size in tables:
            if size >= 100_000:
                say(f"  {name}.sqlite {table_name}: {size} bytes, {size / max(1, report['events']):.1f} an event")
    say(f"server's log: {report['log']['bytes']} bytes, lines {report['log']['lines']}")
    return "\n".join(said)
