"""The page and the plot of a soak, made from its results."""

from __future__ import annotations

from typing import Any

from benchmarks.mixture import KINDS
from benchmarks.plots import panels

LABELS = {
    "fds": "descriptors",
    "threads": "threads",
    "children": "children",
    "programs": "programs left",
    "containers": "containers",
    "pods": "pods",
    "rss_mib": "memory, MiB",
}
"""What is counted, and what the page calls it."""


def plot(found: dict[str, Any]) -> str:
    """Return the samples of all loops as SVG."""
    rows = {
        words: {
            loop: [(sample["calls"], sample[name]) for sample in seen["samples"]]
            for loop, seen in found["loops"].items()
            if "samples" in seen
        }
        for name, words in LABELS.items()
    }
    return panels(
        f"{found['calls']} calls: what this process and its engines hold", "calls made", rows
    )


def render(found: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    about = found["about"]
    text = [
        "# Soak\n",
        "Does anything grow or stay behind after thousands of calls that go wrong? `nox -s",
        "soak` makes 20,000 calls (`-- --calls N` for another number), chosen at random, in",
        "every sandbox that the machine has. Their programs exit, fail, are killed by a signal,",
        "are missing, write too much, hold their streams, do not exit, or are cancelled at any",
        "moment. Each outcome must be correct. Between batches, with no call in flight, the",
        "soak counts what the process holds, and what is left on the machine, in containers and",
        "pods too. Residents hold descriptors, children and containers until everything is",
        "closed. The soak fails if anything grows, or is left in the end.\n",
        f"Measured on {about['day']}: {found['calls']} calls in {found['minutes']:.1f} minutes, {about['cores']} cores, Python {about['python']}, seed {found['seed']}.\n",
        "![What the process and its engines held, over the calls](benchmarks/soak.svg)\n",
        "| | " + " | ".join(LABELS.values()) + " | wrong outcomes |",
        "| --- " * (len(LABELS) + 2) + "|",
    ]
    for loop, seen in found["loops"].items():
        if "samples" in seen:
            for when, sample in (
                ("before", seen["before"]),
                ("last batch", seen["samples"][-1]),
                ("closed", seen["final"]),
            ):
                wrong = str(sum(seen["wrong"].values())) if when == "closed" else ""
                text.append(
                    f"| {loop}, {when} | "
                    + " | ".join(f"{sample[name]:g}" for name in LABELS)
                    + f" | {wrong} |"
                )
    problems = [
        f"- {loop}: {problem}"
        for loop, seen in found["loops"].items()
        for problem in seen["problems"]
    ]
    text += [
        "",
        "Problems:\n" if problems else "Nothing grew and nothing was left.",
        *problems,
        "",
    ]
    missing = found["missing"] | {
        k: v for seen in found["loops"].values() for k, v in seen.get("missing", {}).items()
    }
    text += (
        ["Left out:\n", *(f"- {name}: {why}" for name, why in missing.items()), ""]
        if missing
        else []
    )
    text += [
        "| sandbox | " + " | ".join(kind.name for kind in KINDS) + " |",
        "| --- " * (len(KINDS) + 1) + "|",
    ]
    for way in dict.fromkeys(
        name.partition(": ")[0]
        for seen in found["loops"].values()
        for name in seen.get("calls", {})
    ):
        many = [
            sum(
                seen.get("calls", {}).get(f"{way}: {kind.name}", 0)
                for seen in found["loops"].values()
            )
            for kind in KINDS
        ]
        text.append(f"| {way} | " + " | ".join(map(str, many)) + " |")
    return "\n".join(text) + "\n"
