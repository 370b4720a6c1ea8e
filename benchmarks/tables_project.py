"""Tables of the benchmarks of the project itself: its start-up and its tests."""

from figures import load, markdown


def startup() -> str:
    """Return the seconds until a command or an import is ready, then and now."""
    figures = load("startup")
    rows = [
        [
            f"`{name}`",
            *(f"{found[state]['median']:.2f}" for state in ("before", "now")),
            f"{found['now_to_import_jax']['median']:.2f}",
        ]
        for name, found in figures["seconds"]["cpu"].items()
    ]
    head = ["command", figures["before"], "now", "now / `import jax`"]
    return "\n".join(
        [
            *markdown(head, rows),
            f"\nValues are medians of {figures['rounds']} rounds, in seconds of "
            "processor time. The two states take turns within a round "
            "(`benchmarks/startup.py`).",
        ]
    )


def mutants() -> str:
    """Return how many small mistakes the tests notice, room by room."""
    figures = load("mutants")
    rooms: dict[str, list[bool]] = {}
    for mutant in figures["mutants"]:
        rooms.setdefault(mutant["room"], []).append(mutant["killed"])
    rows = [[room, str(len(found)), str(sum(found))] for room, found in rooms.items()]
    return "\n".join(
        [
            *markdown(["room", "mistakes", "noticed"], rows),
            f"\n{figures['killed']} of {len(figures['mutants'])} small mistakes, one "
            "at a time, make a test of their room fail (`benchmarks/mutants.py`).",
        ]
    )
